"""The safety checker: loaded as published, decides as diffusers' own, and no clip gets past it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from safety_checkers import SIDE, Picture, random_checker, save_checker, views, with_published_keys

import vidkit
from vidkit import generation
from vidkit.errors import GenerationError, InputError, SetupError
from vidkit.models.inspection import inspect
from vidkit.panel.run_clip import run_clip
from vidkit.params import GenerationParams
from vidkit.progress import CancelToken, Reporter
from vidkit.runs import content_key, read_manifest
from vidkit.safety import checks
from vidkit.safety.checker import BATCH, ENDS_EVERY, Checker, squares
from vidkit.safety.checks import in_words
from vidkit.safety.screening import NONE, OFF, VARIABLE
from vidkit.settings import update_settings
from vidkit.video import read_frames

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture(autouse=True)
def no_checker_of_another_test() -> Any:
    yield
    generation._checker.drop()


def noise(seed: int, height: int = SIDE, width: int = SIDE) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def red(height: int = SIDE, width: int = SIDE) -> Picture:
    return np.full((height, width, 3), (230, 20, 10), np.uint8)


SAFE = [noise(seed) for seed in range(1, 6)]


# --- the network


def test_it_decides_as_diffusers_own(tmp_path: Path) -> None:
    folder = save_checker(tmp_path, red(), SAFE)
    ours, theirs = Checker(folder), StableDiffusionSafetyChecker.from_pretrained(folder)
    pictures = [*SAFE, red(), noise(9), red()]
    assert ours.flagged(pictures) == [5, 7]
    assert theirs(views(pictures), [np.zeros(1)] * 8)[1] == [number in (5, 7) for number in range(8)]
    assert ours._module.state_dict().keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(ours._module.state_dict()[key], tensor), key


@pytest.mark.parametrize("pickled", [False, True])
def test_the_published_files_keys_are_read(tmp_path: Path, pickled: bool) -> None:
    folder = with_published_keys(save_checker(tmp_path, red(), SAFE), pickled=pickled)
    assert inspect(folder).kind == "safety checker"
    assert Checker(folder).flagged([noise(1), red()]) == [1]


def test_one_file_is_enough(tmp_path: Path) -> None:
    file = save_checker(tmp_path, red(), SAFE) / "model.safetensors"
    assert Checker(file).flagged([noise(1), red()]) == [1]


def test_half_precision_is_computed_in_single(tmp_path: Path) -> None:
    folder = save_checker(tmp_path, red(), SAFE)
    halved = {key: tensor.half() for key, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(halved, folder / "model.fp16.safetensors")
    checker = Checker(folder)
    assert {tensor.dtype for tensor in checker._module.state_dict().values()} == {torch.float32}
    assert checker.flagged([red(), noise(1)]) == [0]


def test_it_is_on_the_cpu_and_says_how_far_it_is(tmp_path: Path) -> None:
    checker = Checker(save_checker(tmp_path, red(), SAFE))
    assert {tensor.device.type for tensor in checker._module.state_dict().values()} == {"cpu"}
    done: list[int] = []
    checker.flagged([noise(seed) for seed in range(2 * BATCH + 1)], done.append)
    assert done == [BATCH, 2 * BATCH, 2 * BATCH + 1]


def test_the_ends_of_wide_pictures_are_seen_too() -> None:
    wide = [noise(seed, 32, 57) for seed in range(ENDS_EVERY + 2)]
    seen = [(number, np.asarray(view)) for number, view in squares(wide)]
    assert [number for number, _ in seen] == [0, 0, 0, *range(1, ENDS_EVERY), *[ENDS_EVERY] * 3, *[ENDS_EVERY + 1] * 3]
    for (_, view), start in zip(seen[:3], (12, 0, 25), strict=True):
        assert np.array_equal(view, wide[0][:, start : start + 32])
    high = [view for _, view in squares([noise(1, 57, 32)])]
    assert np.array_equal(np.asarray(high[2]), noise(1, 57, 32)[25:])
    assert len(list(squares([noise(1, 32, 40)]))) == 1


def test_what_is_only_at_an_end_is_found(tmp_path: Path) -> None:
    checker = Checker(save_checker(tmp_path, red(), SAFE))
    picture = np.concatenate([noise(1), red()], axis=1)
    assert checker.flagged([picture]) == [0]


@pytest.mark.parametrize("damage", ["missing", "shape", "nan", "other", "empty"])
def test_a_checker_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    folder = save_checker(tmp_path, red(), SAFE)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if damage == "missing":
        del tensors["vision_model.post_layernorm.weight"]
    elif damage == "shape":
        tensors["concept_embeds"] = tensors["concept_embeds"][:, :7].contiguous()
    elif damage == "nan":
        tensors["visual_projection.weight"][0, 0] = float("nan")
    elif damage == "other":
        tensors = {"vision_model.embeddings.class_embedding": tensors["vision_model.embeddings.class_embedding"]}
    save_file(tensors, file)
    if damage == "empty":
        file.unlink()
    with pytest.raises(SetupError, match="The safety checker does not load") as caught:
        Checker(folder)
    assert "vidkit models download safety-checker" in caught.value.suggestions[0]


def test_a_damaged_checker_stops_the_clip(tmp_path: Path, tiny_svd_folder: Path) -> None:
    install(red(), SAFE)
    (installed() / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(SetupError, match="The safety checker does not load"):
        vidkit.generate(request(tiny_svd_folder, tmp_path))
    assert not (tmp_path / "clip.mp4").exists()


# --- clips


def installed() -> Path:
    from vidkit.settings import load_settings

    return load_settings().models / "safety-checker"


def install(unsafe: Picture, safe: list[Picture]) -> None:
    save_checker(installed(), unsafe, safe)
    generation._checker.drop()


def request(model: Path | str, folder: Path, **more: Any) -> dict[str, Any]:
    image = clips.saved(folder) if not (folder / "picture.png").exists() else folder / "picture.png"
    return clips.svd_request(Path(model), image, output_path=str(folder / "clip.mp4"), **more)


@pytest.fixture(scope="module")
def frames(tiny_svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> clips.Frames:
    """Of `request`'s clip."""
    return clips.frames_of(request(tiny_svd_folder, tmp_path_factory.mktemp("frames")))


def picture() -> Picture:
    return np.asarray(clips.picture())


def test_a_clip_with_an_unsafe_frame_is_not_written(
    tmp_path: Path, tiny_svd_folder: Path, frames: clips.Frames
) -> None:
    install(frames[2], [frames[0], frames[1], frames[3], picture()])
    seen: list[Any] = []
    with pytest.raises(GenerationError, match="frame 3 of 4 for adult content; nothing was written") as caught:
        vidkit.generate(request(tiny_svd_folder, tmp_path), on_frames=seen.append)
    assert caught.value.code == "unsafe_output"
    assert seen == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture.png"]


def test_a_safe_clip_is_the_same_and_says_that_it_was_checked(
    tmp_path: Path, tiny_svd_folder: Path, frames: clips.Frames
) -> None:
    install(red(), [*frames, picture()])
    messages: list[str] = []
    made: list[clips.Frames] = []
    result = vidkit.generate(
        request(tiny_svd_folder, tmp_path),
        on_progress=lambda event: messages.append(event.message),
        on_frames=made.append,
    )
    assert "Checking that the frames are safe: 4 of 4..." in messages
    assert messages.index("Checking that the picture is safe...") < messages.index("Loading model...")
    told = vidkit.show(result.output)["safetyChecker"]
    assert (told["setting"], told["checked"]) == ("auto", True)
    assert len(told["sha256"]) == 64
    assert result.metadata["timing"]["safety"] > 0
    assert not any("check" in note for note in result.notes)
    assert np.array_equal(made[0], frames)


def test_an_unsafe_picture_is_refused_before_a_model_is_loaded(tmp_path: Path, tiny_svd_folder: Path) -> None:
    clips.cold()
    install(picture(), SAFE)
    with pytest.raises(InputError, match="takes the picture for adult content; nothing was computed") as caught:
        vidkit.generate(request(tiny_svd_folder, tmp_path))
    assert (caught.value.code, caught.value.concerns) == ("unsafe_image", ("image_path",))
    assert generation.loaded_models() == []


def test_the_last_picture_is_checked_too(tmp_path: Path) -> None:
    from vidkit.safety.checker import WarmChecker
    from vidkit.safety.screening import Screening

    screening = Screening("auto", save_checker(tmp_path, red(), SAFE), "0" * 64)
    pictures = [Image.fromarray(noise(1)), Image.fromarray(red())]
    with pytest.raises(InputError, match="the last picture") as caught:
        checks.check_pictures(WarmChecker(), screening, pictures, Reporter(None, None))
    assert caught.value.concerns == ("last_image_path",)


def test_without_a_checker_a_note_says_so(tmp_path: Path, tiny_svd_folder: Path) -> None:
    result = vidkit.generate(request(tiny_svd_folder, tmp_path))
    assert NONE in result.notes
    record = vidkit.show(result.output)
    assert record["safetyChecker"] == {"setting": "auto", "checked": False, "sha256": None}
    assert NONE in record["notes"]


def test_on_without_a_checker_makes_no_clip(
    tmp_path: Path, tiny_svd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKIT_SAFETY_CHECKER", "on")
    for model in (tiny_svd_folder, "bundled:tiny-svd"):
        with pytest.raises(SetupError) as caught:
            vidkit.generate({**request(tiny_svd_folder, tmp_path), "base_model": str(model)})
        assert caught.value.code == "no_safety_checker"
        assert caught.value.suggestions[0] == "Install it: vidkit models download safety-checker"


def test_on_shows_nothing_that_was_not_checked(tmp_path: Path, tiny_svd_folder: Path, frames: clips.Frames) -> None:
    install(red(), [*frames, picture()])
    looks: dict[str, list[Any]] = {"auto": [], "on": []}
    for setting, shown in looks.items():
        update_settings(safety={"checker": setting})
        vidkit.generate(request(tiny_svd_folder, tmp_path, overwrite=True), on_preview=shown.append)
    assert looks["auto"] and not looks["on"]


def test_on_takes_no_clip_for_done_that_was_made_without_a_check(
    tmp_path: Path, tiny_svd_folder: Path, frames: clips.Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the panel, nor in a sweep, which know what is done by its key."""
    asked = GenerationParams(**{**request(tiny_svd_folder, tmp_path), "output_path": None})
    root = tmp_path / "runs"
    before, known = run_clip(asked, root)
    assert not known
    assert run_clip(asked, root)[1]
    install(red(), [*frames, picture()])
    assert content_key(asked)[0] == before.key  # auto: what is there stays
    monkeypatch.setenv(VARIABLE, "on")
    after, known = run_clip(asked, root)
    assert not known
    assert after.key == content_key(asked)[0] != before.key
    assert vidkit.show(after.clip())["safetyChecker"]["checked"] is True
    manifest = read_manifest(after)
    assert manifest is not None and (manifest.model_extra or {})["safetyChecker"]["checked"] is True
    assert run_clip(asked, root)[1]
    assert before.is_done()


def test_off_needs_the_acknowledgement(tmp_path: Path, tiny_svd_folder: Path, frames: clips.Frames) -> None:
    install(frames[2], [frames[0], frames[1], frames[3], picture()])
    update_settings(safety={"checker": "off"})
    with pytest.raises(SetupError) as caught:
        vidkit.generate(request(tiny_svd_folder, tmp_path))
    assert caught.value.code == "acknowledgement_needed"
    vidkit.acknowledge(accept=True)
    result = vidkit.generate(request(tiny_svd_folder, tmp_path))
    assert OFF in result.notes
    assert vidkit.show(result.output)["safetyChecker"] == {"setting": "off", "checked": False, "sha256": None}
    assert len(read_frames(result.output)) == 4


def test_a_registered_checker_that_is_gone_stops_the_clip(tmp_path: Path, tiny_svd_folder: Path) -> None:
    from vidkit.models.registry import register
    from vidkit.settings import load_settings

    elsewhere = save_checker(tmp_path / "elsewhere", picture(), SAFE)
    register(load_settings(), elsewhere, "safety-checker", "custom")
    with pytest.raises(InputError, match="adult content"):
        vidkit.generate(request(tiny_svd_folder, tmp_path))
    elsewhere.rename(tmp_path / "moved")
    with pytest.raises(SetupError, match="The safety checker does not load"):
        vidkit.generate(request(tiny_svd_folder, tmp_path))


def test_a_cancelled_check_leaves_nothing(tmp_path: Path, tiny_svd_folder: Path, frames: clips.Frames) -> None:
    install(red(), [*frames, picture()])
    token = CancelToken()

    def stop(event: vidkit.Progress) -> None:
        if event.message.startswith("Checking that the frames"):
            token.cancel()

    with pytest.raises(vidkit.Cancelled):
        vidkit.generate(request(tiny_svd_folder, tmp_path), on_progress=stop, cancel=token)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture.png"]


def test_another_checker_in_its_place_is_loaded_anew(tmp_path: Path, tiny_svd_folder: Path) -> None:
    save_checker(installed(), red(), [*SAFE, picture()])
    vidkit.generate(request(tiny_svd_folder, tmp_path))
    save_checker(installed(), picture(), SAFE)
    with pytest.raises(InputError, match="adult content"):
        vidkit.generate(request(tiny_svd_folder, tmp_path, overwrite=True))
    assert generation._checker._checker is not None
    generation.unload()
    assert generation._checker._checker is None


def test_frames_are_named_in_words() -> None:
    assert in_words([0], 4) == "frame 1 of 4"
    assert in_words([0, 2], 4) == "frames 1, 3 of 4"
    assert in_words([0, 1], 2) == "all 2 frames"
    assert in_words(range(1, 15), 40) == "frames 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 2 more of 40"


def test_the_random_checker_takes_nothing_for_unsafe(tmp_path: Path) -> None:
    """So that a frame that is flagged is flagged by the concept that a test put there."""
    random_checker().save_pretrained(tmp_path)
    assert Checker(tmp_path).flagged([*SAFE, red(), picture()]) == []
