"""Requests with LoRAs from one end to the other: generation, key, record, the way back from a clip, sweeps."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import clips
import lora_files
import numpy as np
import pytest
import yaml
from diffusers import AnimateDiffVideoToVideoPipeline, MotionAdapter
from opened_files import opened
from tiny_models import TinyAnimateDiff

import vidkit
from vidkit.cli import given_options, make_parser
from vidkit.errors import InputError
from vidkit.memory.parts import Weights, weights_of
from vidkit.panel.copy_as import copy_as
from vidkit.panel.jobs import with_absolute_paths
from vidkit.panel.preferences import load_request, save_request
from vidkit.params import GenerationParams
from vidkit.pipelines.animatediff import AnimateDiff
from vidkit.record import content_of, key_of, names_of_models, request_from_clip, show
from vidkit.resolving import resolve_request
from vidkit.runs import content_key
from vidkit.settings import config_path, load_settings
from vidkit.sweep.plan import make_plan
from vidkit.sweep.report_data import short_text

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture(scope="module")
def loras(tiny_animatediff: TinyAnimateDiff, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A style for UNet and text encoder, and a motion LoRA."""
    adapter = MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter)
    pipe = AnimateDiffVideoToVideoPipeline.from_pretrained(tiny_animatediff.base, motion_adapter=adapter)
    folder = tmp_path_factory.mktemp("loras")
    style = lora_files.pairs_for(pipe, lora_files.LINEAR)
    style += lora_files.pairs_for(pipe, lora_files.TEXT, component="text_encoder", inside="layers")
    motion = lora_files.pairs_for(pipe, lora_files.ATTENTION, inside="motion_modules", seed=2)
    return {
        "style": lora_files.save(lora_files.kohya(style), folder / "style.safetensors"),
        "motion": lora_files.save(lora_files.original_motion(motion), folder / "motion.safetensors"),
    }


@pytest.fixture
def request_(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> dict[str, Any]:
    return clips.animatediff_request(tiny_animatediff, clips.saved(tmp_path))


def unlike(one: clips.Frames, other: clips.Frames) -> bool:
    return float(np.abs(one.astype(int) - other).max()) > 8


@pytest.mark.parametrize("conditioning", ["init", "sparsectrl", "pia"])
def test_loras_come_and_go_and_nothing_of_the_base_is_read(
    tiny_animatediff: TinyAnimateDiff, loras: dict[str, Path], tmp_path: Path, conditioning: str
) -> None:
    request = clips.animatediff_request(tiny_animatediff, clips.saved(tmp_path), conditioning)
    both = request | {"loras": f"{loras['style']}:0.8, {loras['motion']}"}
    weaker = request | {"loras": f"{loras['style']}:0.1, {loras['motion']}:-1"}
    backwards = request | {"loras": f"{loras['motion']}, {loras['style']}:0.8"}
    plain = clips.frames_of(request)
    clips.prepared(both)  # whether they go together is told by the files' headers, which are remembered
    found: dict[str, clips.Frames] = {}
    models = [tiny_animatediff.base, tiny_animatediff.motion_adapter, tiny_animatediff.sparse_controlnet]
    with opened(*models, tiny_animatediff.pia_adapter) as files:
        found["both"], found["weaker"] = clips.frames_of(both), clips.frames_of(weaker)
        found["backwards"], found["plain"] = clips.frames_of(backwards), clips.frames_of(request)
    assert files == set()
    assert unlike(found["both"], plain) and unlike(found["weaker"], plain) and unlike(found["weaker"], found["both"])
    assert np.array_equal(found["backwards"], found["both"])
    assert np.array_equal(found["plain"], plain)
    clips.cold()
    assert np.array_equal(clips.frames_of(both), found["both"])  # the same as on a base that was just loaded


def test_another_base_takes_the_loras_with_it(request_: dict[str, Any], loras: dict[str, Path], tmp_path: Path) -> None:
    """The text encoder, the UNet and the motion modules may each stay loaded, and none of them keeps a LoRA."""
    other = tmp_path / "other"
    shutil.copytree(request_["base_model"], other)
    config = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps({**config, "center_input_sample": True}))
    with_lora = {"loras": f"{loras['style']}, {loras['motion']}"}
    there = request_ | {"base_model": str(other)}
    clips.cold()
    wanted = clips.frames_of(there)
    clips.cold()
    plain = clips.frames_of(request_)
    clips.frames_of(request_ | with_lora)
    assert np.array_equal(clips.frames_of(there), wanted)
    clips.frames_of(there | with_lora)
    assert np.array_equal(clips.frames_of(request_), plain)


def test_long_clips_have_motion_loras_too(request_: dict[str, Any], loras: dict[str, Path]) -> None:
    long = request_ | {"num_frames": 34, "num_inference_steps": 1, "strength": 1.0}
    plain = clips.frames_of(long)
    assert unlike(clips.frames_of(long | {"loras": str(loras["motion"])}), plain)
    assert np.array_equal(clips.frames_of(long), plain)


def test_a_clip_tells_its_loras_and_makes_itself_again(
    request_: dict[str, Any], loras: dict[str, Path], tmp_path: Path
) -> None:
    request = request_ | {"loras": f"{loras['style']}:0.8, {loras['motion']}", "output_path": str(tmp_path / "a.mp4")}
    result = vidkit.generate(request)
    record = show(tmp_path / "a.mp4")
    assert {name: (one["name"], one["weight"]) for name, one in record["models"].items() if "weight" in one} == {
        "lora1": ("style.safetensors", "0.8"),
        "lora2": ("motion.safetensors", "1"),
    }
    assert str(loras["style"].parent) not in json.dumps(record)
    assert "loras" not in record["request"]
    again = request_from_clip(tmp_path / "a.mp4")
    assert again["loras"] == f"{loras['style']}:0.8, {loras['motion']}:1"  # where they were last seen, by their hashes
    assert key_of(record) == content_key(GenerationParams(**request))[0]
    once_more = {**again, "imagePath": request["image_path"], "overwrite": True}
    assert np.array_equal(clips.frames_of(once_more), clips.frames_of(request | {"overwrite": True}))
    assert result.metadata["notes"] == [note for note in result.metadata["notes"] if "lora" not in note.lower()]


def test_hashes_and_weights_make_the_key_and_neither_names_nor_order(
    request_: dict[str, Any], loras: dict[str, Path], tmp_path: Path
) -> None:
    def key(text: str | None) -> str:
        return content_key(GenerationParams(**request_, **({"loras": text} if text is not None else {})))[0]

    copy = Path(shutil.copy(loras["style"], tmp_path / "copy.safetensors"))
    style, motion = loras["style"], loras["motion"]
    first = key(f"{style}:0.8, {motion}")
    assert key(f"{motion}:1, {copy}:0.80") == first
    assert len({first, key(f"{style}:0.8, {motion}:0.9"), key(f"{style}:0.8"), key(f"{motion}:0.8"), key(None)}) == 5
    assert key("") == key(None)
    with pytest.raises(InputError, match="twice"):
        key(f"{style}, {copy}:0.5")
    with pytest.raises(InputError, match="twice"):
        clips.prepared(request_ | {"loras": f"{style}, {copy}:0.5"})


def test_keys_of_requests_without_loras_are_those_of_before_there_were_any() -> None:
    """Computed with the version before: else every finished run would be made again."""
    base, adapter = {"name": "base", "sha256": "a" * 64}, {"name": "m", "sha256": "b" * 64}
    picture = {"name": "p.png", "sha256": "c" * 64}
    small = {"width": 64, "height": 64, "num_frames": 4, "num_inference_steps": 2, "seed": 3, "output_format": "mp4"}
    words = GenerationParams(
        image_path="p.png",
        prompt="slow zoom in",
        pipeline="animatediff",
        base_model="base",
        motion_adapter="m",
        **small,  # type: ignore[arg-type]
    )
    content = content_of(words, models={"baseModel": base, "motionAdapter": adapter}, pictures=[picture])
    assert key_of(content | {"resultsVersion": 1}) == "c4bd1bf3b8333b72c98cb855fada53a239b91a662ac27337a50efb202fd27950"
    svd = GenerationParams(image_path="p.png", prompt="x", **small)  # type: ignore[arg-type]
    content = content_of(svd, models={"baseModel": base}, pictures=[picture])
    assert key_of(content | {"resultsVersion": 1}) == "e606d00d54f7fdc81131dfa6b4ac1978ee0d6b7ba4d2ea05f6985b25f3ed743f"


def test_svd_ignores_loras_and_says_so(tiny_svd_folder: Path, tmp_path: Path) -> None:
    request = clips.svd_request(tiny_svd_folder, clips.saved(tmp_path), loras="nowhere.safetensors:0.5")
    found = resolve_request(GenerationParams(**request), load_settings())
    assert "loras is ignored: only animatediff uses it." in found.notes
    assert list(found.models) == ["base_model"]
    without = {name: value for name, value in request.items() if name != "loras"}
    assert content_key(GenerationParams(**request))[0] == content_key(GenerationParams(**without))[0]
    clips.prepared(request)


# --- the other faces of the schema ----------------------------------------------------------------------------------


def test_an_axis_of_a_sweep_parts_lists_at_bars(
    request_: dict[str, Any], loras: dict[str, Path], tmp_path: Path, vidkit_home: Path
) -> None:
    (vidkit_home / "models").mkdir()
    shutil.copy(loras["motion"], vidkit_home / "models" / "pan.safetensors")
    shutil.copy(loras["style"], tmp_path / "style.safetensors")
    base = {name: value for name, value in request_.items() if name != "seed"} | {"seed": 7}
    written = "style.safetensors:0.5, pan.safetensors || pan.safetensors:-1 || style.safetensors:0.5"
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": base, "axes": {"fps": [8, 9], "loras": written}}))
    plan = make_plan(tmp_path / "sweep.yaml")
    there = tmp_path / "style.safetensors"  # relative to the file; a name in the models folder stays one
    assert list(dict.fromkeys(point.params.loras for point in plan.points)) == [
        f"{there}:0.5, pan.safetensors:1",
        "pan.safetensors:-1",
        f"{there}:0.5",
    ]
    assert [point.params.fps for point in plan.points] == [8, 9] * 3  # LoRAs are put on as seldom as can be
    assert len({content_key(point.params)[0] for point in plan.points}) == 6


def test_wrong_lists_of_a_sweep_are_told_before_anything_runs(request_: dict[str, Any], tmp_path: Path) -> None:
    axes = {"loras": ["nowhere.safetensors", "a:9", None]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": request_, "axes": axes}))
    with pytest.raises(InputError) as refused:
        make_plan(tmp_path / "sweep.yaml")
    assert "The weight of the LoRA 'a' is 9" in refused.value.message
    assert "nowhere.safetensors" in refused.value.message


def test_the_report_shows_files_by_their_names_alone() -> None:
    assert short_text("/data/loras/pan.safetensors:0.5, C:\\loras\\zoom.safetensors", "loras") == (
        "pan.safetensors:0.5, zoom.safetensors:1"
    )
    assert short_text("/data/a.png", "image_path") == "a.png"
    assert short_text("pan/tilt", "prompt") == "pan/tilt"
    assert short_text(None, "loras") == "null"


def test_the_command_line_and_what_is_copied_from_the_panel_agree(loras: dict[str, Path]) -> None:
    written = f"{loras['style']}:0.5, {loras['motion']}:-1"
    params = GenerationParams(image_path="a.png", prompt="x", pipeline="animatediff", loras=written)
    command = shlex.split(copy_as(params, "cli"))
    assert command[command.index("--loras") + 1] == written
    assert given_options(make_parser().parse_args(command[1:]))["loras"] == written
    assert json.loads(copy_as(params, "json"))["loras"] == written
    assert yaml.safe_load(copy_as(params, "yaml"))["loras"] == written


def test_paths_of_loras_are_made_absolute_for_a_job_and_kept_for_their_owner_alone(
    tmp_path: Path, vidkit_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.safetensors").touch()
    params = GenerationParams(image_path="example:photo", prompt="x", loras="here.safetensors:0.5, pan")
    assert with_absolute_paths(params).loras == f"{tmp_path}/here.safetensors:0.5, pan:1"
    inside = str(vidkit_home / "models" / "zoom.safetensors")
    for written, shared in (
        (f"pan:1, {inside}:2", "pan:1, {home}/models/zoom.safetensors:2"),
        (f"{inside}:2, /secret/pan.safetensors:1", None),
    ):
        save_request(params.replace(loras=written))
        kept = json.loads(config_path().read_text())["panel"]["request"]
        assert kept.get("loras") == shared
        assert load_request() == (params.replace(loras=written), [])


def test_a_damaged_list_is_not_restored_and_named(vidkit_home: Path) -> None:
    save_request(GenerationParams(image_path="example:photo", prompt="mine", loras="pan:1"))
    content = json.loads(config_path().read_text())
    content["panel"]["request"]["loras"] = "pan:99"
    config_path().write_text(json.dumps(content))
    params, notes = load_request()
    assert (params.prompt, params.loras) == ("mine", None)
    assert any("The weight of the LoRA 'pan' is 99" in note for note in notes)


def test_a_table_of_runs_names_the_loras() -> None:
    models = {
        "baseModel": {"name": "b", "sha256": "a" * 64},
        "lora1": {"name": "style.safetensors", "sha256": "b" * 64, "weight": "0.8"},
        "lora2": {"name": "p, q", "sha256": "c" * 64, "weight": "-1"},
    }
    assert names_of_models(models) == {"baseModel": "b", "loras": 'style.safetensors:0.8, "p, q":-1'}


def test_memory_of_loras_is_foreseen(request_: dict[str, Any], loras: dict[str, Path], tmp_path: Path) -> None:
    """What they change is on the device once more, however many change it and whatever their files' type is."""

    def weights(text: str | None) -> Weights:
        params = GenerationParams(**request_ | {"loras": text})
        return weights_of(params, AnimateDiff().models(params, load_settings()), "float16")

    adapter = MotionAdapter.from_pretrained(request_["motion_adapter"])
    pipe = AnimateDiffVideoToVideoPipeline.from_pretrained(request_["base_model"], motion_adapter=adapter)

    def taken(*pairs: lora_files.Pairs) -> int:
        layers = {
            pair.module: getattr(pipe, pair.component).get_submodule(pair.module) for one in pairs for pair in one
        }
        return sum(-(-layer.weight.numel() * 2 // 512) * 512 for layer in layers.values())

    style = lora_files.pairs_for(pipe, lora_files.LINEAR)
    other = lora_files.pairs_for(pipe, (*lora_files.CONVOLUTIONS, "to_q"), inside="down_blocks")
    text = lora_files.pairs_for(pipe, lora_files.TEXT, component="text_encoder", inside="layers")
    second = lora_files.save(lora_files.kohya(other), tmp_path / "second.safetensors")
    plain, both = weights(None), weights(f"{loras['style']}, {second}")
    assert both.changed == taken(style, other) + taken(text) > taken(text) > 0
    assert both.all - plain.all == both.changed
