"""The picture: uploaded, named by its path, or a former clip; shown as the model will see it."""

from __future__ import annotations

import hashlib
import html
import io
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import ipywidgets
from PIL import Image

from vidkit.errors import InputError, VidkitError
from vidkit.files import written_whole
from vidkit.images import fit_image
from vidkit.models.locate import picture_path
from vidkit.panel.problems import ProblemView
from vidkit.params import GenerationParams
from vidkit.paths import local_path
from vidkit.record import VIDEO_SUFFIXES, load_picture

#: pixels: the longer side of what is shown, and of the copy of the picture that is kept for showing it
SHOWN: Final = 384
KEPT: Final = 1536

ACCEPTED: Final = "image/*," + ",".join(VIDEO_SUFFIXES)


class PictureView:
    """The control of a picture parameter.

    Args:
        name: image_path or last_image_path.
        label: of its path box.
        folder: where uploads are kept, named by their content.
        lock: the panel's.
        on_clip: told of a clip that was chosen as the picture, to restore its settings.
        optional: whether an empty box means "not given" (else it is a problem).
    """

    def __init__(
        self,
        name: str,
        label: str,
        *,
        folder: Path,
        lock: threading.RLock,
        on_clip: Callable[[Path], None] | None = None,
        optional: bool = False,
    ) -> None:
        self.name = name
        self._folder, self._lock, self._on_clip, self._optional = folder, lock, on_clip, optional
        self._listeners: list[Callable[[str], None]] = []
        self._kept: tuple[Any, Image.Image] | None = None
        self._shown: Any = None
        self._path = ipywidgets.Combobox(
            description=label,
            options=known_pictures(folder),
            continuous_update=False,
            placeholder="path of a picture or of a clip" + (", or empty" if optional else ""),
            layout={"width": "auto", "flex": "1 1 240px"},
        )
        # Jupyter Server drops larger messages without a word (`websocket_max_message_size`: 10 MiB)
        self._upload = ipywidgets.FileUpload(
            description="Upload", accept=ACCEPTED, tooltip=f"Upload for {label.lower()}; up to 10 MB, else give a path"
        )
        self._image = ipywidgets.Image(format="png", layout={"max_width": "100%", "display": "none"})
        self._words = ipywidgets.HTML()
        self._problem = ProblemView()
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self._path, self._upload], layout={"flex_flow": "row wrap"}),
                self._problem.widget,
                self._image,
                self._words,
            ]
        )
        self._path.observe(self._on_path, "value")
        self._upload.observe(self._on_upload, "value")

    # --- what every control can do (see `vidkit.panel.controls.Control`)

    def get(self) -> str | None:
        return self._path.value.strip() or None

    def set(self, value: str | None) -> None:
        self._path.unobserve(self._on_path, "value")
        self._path.value = value or ""
        self._path.observe(self._on_path, "value")

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._listeners.append(callback)

    def narrow(self, default: Any, low: float | None, high: float | None, step: float | None) -> None:
        """No model narrows a picture."""

    def show_problem(self, problem: VidkitError | None, apply: Callable[[Mapping[str, Any]], None]) -> None:
        self._problem.show(problem, apply)

    # ---

    def show(self, resolved: GenerationParams | None, number: int = 0) -> VidkitError | None:
        """Show the picture fitted to a resolved request's size; number: 1 for the last frame's. Returns what is wrong
        with the picture."""
        name = self.get()
        if name is None or resolved is None:
            self._image.layout.display = "none"
            self._words.value = ""
            return None
        try:
            path = picture_path(name)
            stamp = stamp_of(path)
            wanted = (stamp, number, resolved.width, resolved.height, resolved.fit)
            if wanted != self._shown:
                picture = self._picture(path, number, stamp)
                self._draw(picture, resolved)
                self._shown = wanted
        except VidkitError as error:
            self._image.layout.display = "none"
            self._words.value, self._shown = "", None
            return InputError(error.code, error.message, error.suggestions, [self.name])
        return None

    def _picture(self, path: Path, number: int, stamp: Any) -> Image.Image:
        """Decoded once for each state of the file, and small enough to be fitted in some milliseconds."""
        if self._kept is None or self._kept[0] != (stamp, number):
            picture = load_picture(path, number)
            original = picture.size
            picture.thumbnail((KEPT, KEPT))
            picture.info["original"] = original
            self._kept = ((stamp, number), picture)
        return self._kept[1]

    def _draw(self, picture: Image.Image, resolved: GenerationParams) -> None:
        width, height = resolved.width or 1, resolved.height or 1
        scale = SHOWN / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        seen = fit_image(picture, width, height, resolved.fit) if scale > 1 else fit_image(picture, *size, resolved.fit)
        data = io.BytesIO()
        seen.save(data, "PNG", compress_level=1)
        self._image.value = data.getvalue()
        self._image.layout.width, self._image.layout.display = f"{size[0]}px", ""
        self._words.value = (
            f"<small>{html.escape(words(picture.info['original'], width, height, resolved.fit))}</small>"
        )

    def _on_path(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            self._tell()

    def _on_upload(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            files = list(change["new"])
            self._upload.unobserve(self._on_upload, "value")
            self._upload.value = ()  # or its bytes are saved into the notebook
            self._upload.observe(self._on_upload, "value")
            if files:
                self._take(str(files[0]["name"]), bytes(files[0]["content"]))

    def _take(self, name: str, content: bytes) -> None:
        try:
            path = keep_upload(self._folder, name, content)
        except OSError as error:
            self._problem.show(
                InputError("invalid_image", f"The upload could not be kept: {error}.", ["Give the picture's path"]),
                lambda changes: None,
            )
            return
        self._path.options = known_pictures(self._folder)
        self.set(str(path))
        self._tell()

    def _tell(self) -> None:
        if self._on_clip is not None and (path := clip_named(self.get() or "")):
            self._on_clip(path)
        for listener in self._listeners:
            listener(self.name)


def clip_named(written: str) -> Path | None:
    """The clip that a picture's path leads to; None for all else, what is wrong with it is told elsewhere."""
    try:
        path = local_path(written)
    except InputError:
        return None
    return path if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() else None


def words(original: tuple[int, int], width: int, height: int, fit: str) -> str:
    """How the picture comes to the clip's size."""
    text = f"As the model sees it: {width}x{height}, from {original[0]}x{original[1]}"
    ratio, wanted = original[0] / original[1], width / height
    share = 1 - min(ratio, wanted) / max(ratio, wanted)
    if share < 0.005:
        return text + "."
    if fit == "crop":
        side = "left and right" if ratio > wanted else "above and below"
        return f"{text}; {share:.0%} is cut off {side}."
    if fit == "pad":
        side = "above and below" if ratio > wanted else "left and right"
        return f"{text}; {share:.0%} of the frame, {side}, is filled with a blurred copy."
    return f"{text}; stretched to another shape (by {1 / (1 - share):.2f})."


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Changes with the file.

    Raises:
        InputError: `image_not_found`.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            "image_not_found",
            f"The image {str(path)!r} cannot be read ({reason}).",
            ["Give the path of a picture file"],
        ) from error
    return str(path), status.st_mtime_ns, status.st_size


def keep_upload(folder: Path, name: str, content: bytes) -> Path:
    """Write an upload under its content's hash and its own name; the same upload twice is one file."""
    folder.mkdir(parents=True, exist_ok=True)
    safe = re.sub(r"[^\w.-]+", "_", Path(name).name)[-60:].lstrip(".") or "picture"
    path = folder / f"{hashlib.sha256(content).hexdigest()[:12]}-{safe}"
    if not path.is_file():
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    return path


def known_pictures(folder: Path) -> list[str]:
    """What can be chosen from: the example, then former uploads, the newest first."""
    files = [file for file in folder.glob("[0-9a-f]*-*") if file.is_file()] if folder.is_dir() else []
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return ["example:photo", *map(str, files[:30])]
