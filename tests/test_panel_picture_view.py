"""The picture's control: path, upload, former clip; shown as the model will see it."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidkit.panel.picture_view import PictureView, keep_upload, words
from vidkit.params import GenerationParams


@pytest.fixture
def view(tmp_path: Path) -> PictureView:
    return PictureView("image_path", "Picture", folder=tmp_path / "pictures", lock=threading.RLock())


def resolved(**more: Any) -> GenerationParams:
    return GenerationParams(**{"image_path": "any", "prompt": "any", "width": 128, "height": 64, **more})


def png(size: tuple[int, int], colour: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def upload(view: PictureView, name: str, content: bytes) -> None:
    """As the front end does: the value is set to what was chosen."""
    view._upload.value = (
        {
            "name": name,
            "type": "image/png",
            "size": len(content),
            "content": content,
            "last_modified": datetime.now(UTC),
        },
    )


def shown(view: PictureView) -> Image.Image:
    return Image.open(io.BytesIO(view._image.value))


def test_an_upload_is_kept_chosen_and_forgotten_by_the_widget(view: PictureView, tmp_path: Path) -> None:
    told: list[str] = []
    view.on_change(told.append)
    content = png((30, 20))

    upload(view, "my photo (1).png", content)

    path = Path(view.get() or "")
    assert path.parent == tmp_path / "pictures"
    assert path.read_bytes() == content
    assert path.name.endswith("-my_photo_1_.png")
    assert view._upload.value == ()
    assert told == ["image_path"]
    upload(view, "my photo (1).png", content)
    assert len(list((tmp_path / "pictures").iterdir())) == 1


@pytest.mark.parametrize("name", ["../../evil.png", "..", "/etc/passwd", "a\x00b.png", "é" * 300 + ".png"])
def test_an_upload_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    path = keep_upload(tmp_path / "pictures", name, b"x")
    assert path.parent == tmp_path / "pictures"
    assert path.read_bytes() == b"x"


def test_shown_as_the_model_sees_it(view: PictureView, tmp_path: Path) -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, :, 0], picture[25:75, :, 0], picture[25:75, :, 2] = 255, 0, 255  # red, blue in the middle half
    Image.fromarray(picture).save(tmp_path / "p.png")
    view.set(str(tmp_path / "p.png"))

    assert view.show(resolved()) is None

    seen = np.asarray(shown(view))
    assert seen.shape[1] == 2 * seen.shape[0]
    assert seen[..., 2].min() > 150  # cropped to the blue half
    assert "128x64, from 100x100; 50% is cut off above and below" in view._words.value
    assert view.show(resolved(fit="stretch")) is None
    assert np.asarray(shown(view))[0, 0, 0] > 200  # the red comes back


def test_a_changed_file_is_shown_anew(view: PictureView, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png((64, 64), "red"))
    view.set(str(path))
    view.show(resolved())
    path.write_bytes(png((65, 65), "blue"))
    view.show(resolved())
    assert shown(view).convert("RGB").getpixel((3, 3))[2] > 200  # type: ignore[index]


@pytest.mark.parametrize(("content", "code"), [(None, "image_not_found"), (b"no picture", "invalid_image")])
def test_a_bad_picture_is_a_problem_of_this_control(
    view: PictureView, tmp_path: Path, content: bytes | None, code: str
) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    view.set(str(path))

    problem = view.show(resolved())

    assert problem is not None
    assert (problem.code, problem.concerns) == (code, ("image_path",))
    assert view._image.layout.display == "none"
    view.show_problem(problem, lambda changes: None)
    assert "Problem: " in view._problem.widget.children[0].value
    view.show_problem(None, lambda changes: None)
    assert view._problem.widget.children == ()


def test_a_clip_is_handed_over(tmp_path: Path) -> None:
    clips: list[Path] = []
    view = PictureView("image_path", "Picture", folder=tmp_path, lock=threading.RLock(), on_clip=clips.append)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    view._path.value = str(tmp_path / "clip.mp4")
    view._path.value = str(tmp_path / "none.mp4")
    assert clips == [tmp_path / "clip.mp4"]


def test_setting_tells_nobody(view: PictureView) -> None:
    told: list[str] = []
    view.on_change(told.append)
    view.set("example:photo")
    assert (view.get(), told) == ("example:photo", [])
    view._path.value = " /a/b.png "
    assert (view.get(), told) == ("/a/b.png", ["image_path"])
    view.set(None)
    assert view.get() is None


def test_words() -> None:
    assert words((200, 100), 128, 64, "crop") == "As the model sees it: 128x64, from 200x100."
    assert "cut off left and right" in words((400, 100), 128, 64, "crop")
    assert "filled with a blurred copy" in words((100, 100), 128, 64, "pad")
    assert "stretched to another shape (by 2.00)" in words((100, 100), 128, 64, "stretch")
