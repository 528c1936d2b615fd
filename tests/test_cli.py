"""`vidkit generate` and `vidkit show` as their clients see them. The worker's life and death: test_supervisor.py."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Finished, Running, assert_good_progress, environment, names, run, save_picture
from safetensors.numpy import load_file, save_file
from tiny_models import TinyAnimateDiff

from vidkit.cli import make_parser, merged_request
from vidkit.errors import InputError
from vidkit.params import GenerationParams
from vidkit.record import AI_GENERATED
from vidkit.video import probe, read_frames, read_record

ROOT = Path(__file__).parent.parent
VIDKIT = str(Path(sys.executable).with_name("vidkit"))
ERROR_KEYS = {"status", "error", "message", "suggestions", "code", "category"}

#: the specification's request example, to the letter
EXAMPLE = r"""
{
  "pipeline": "animatediff",
  "baseModel": "D:\\VideoGenerator\\models\\realistic-vision\\model.safetensors",
  "motionAdapter": "D:\\VideoGenerator\\models\\animatediff\\",
  "imagePath": "D:\\Images\\photo.jpg",
  "prompt": "slow cinematic zoom in, woman turning head slowly, wind blowing through hair, golden hour lighting, dreamy atmosphere, film grain",
  "negativePrompt": "blurry, distorted, low quality, static, ugly, deformed, low res",
  "numFrames": 48,
  "fps": 16,
  "guidanceScale": 7.5,
  "motionBucketId": 180,
  "numInferenceSteps": 30,
  "decodeChunkSize": 4,
  "seed": 42,
  "outputPath": "D:\\VideoGenerator\\output\\video_001.mp4"
}
"""  # noqa: E501


class Studio:
    """A vidkit home with a tiny model under a name, a picture, an output folder and a warm session."""

    def __init__(self, folder: Path, svd: Path) -> None:
        self.home, self.output, self.picture = folder / "home", folder / "output", folder / "photo.png"
        self.output.mkdir()
        shutil.copytree(svd, self.home / "models" / "small")
        save_picture(self.picture)
        self.environment = environment(self.home)
        self.session = Running("--jsonl", env=self.environment, cwd=folder)

    def request(self, **changes: Any) -> dict[str, Any]:
        small = {"width": 64, "height": 64, "numFrames": 3, "numInferenceSteps": 2, "seed": 7}
        return {"baseModel": "small", "imagePath": str(self.picture), "prompt": "slow zoom", **small, **changes}

    def make(self, **changes: Any) -> dict[str, Any]:
        return self.session.ask(self.request(**changes))[0]

    def clip(self, name: str, **changes: Any) -> Path:
        """A clip of this name, made when first wanted."""
        path = self.output / name
        if not path.exists():
            response = self.make(outputPath=str(path), **changes)
            assert response["status"] == "success", response
        return path

    def run(self, *arguments: str | Path, **more: Any) -> Finished:
        return run(*arguments, **{"env": self.environment, **more})


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, tiny_svd_folder: Path) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("studio"), tiny_svd_folder)
    with studio.session:
        yield studio


def from_command_line(*arguments: str) -> dict[str, Any]:
    """The request that `vidkit generate` makes of these arguments."""

    class Silent:
        def wait(self, read: Any) -> bytes:
            raise AssertionError("standard input was not asked for")

    options, _ = make_parser().parse_known_args(["generate", *arguments])
    return merged_request(options, Silent())  # type: ignore[arg-type]


def assert_error(response: dict[str, Any], code: str, category: str) -> None:
    assert set(response) == ERROR_KEYS
    assert (response["status"], response["code"], response["category"]) == ("error", code, category)
    assert response["error"] and response["message"]
    assert isinstance(response["suggestions"], list)
    assert all(isinstance(line, str) for line in response["suggestions"])


# --- the specification's example --------------------------------------------------------------------------------------


def test_the_specifications_request_as_it_stands(studio: Studio, tmp_path: Path) -> None:
    finished = studio.run(EXAMPLE, cwd=tmp_path)
    assert_error(finished.response, "model_not_found", "system")  # there is no D:\ here
    assert finished.code == 3
    assert "realistic-vision" in finished.response["message"]
    assert names(tmp_path) == []


def test_the_specifications_request_with_paths_of_this_machine(
    studio: Studio, tiny_animatediff: TinyAnimateDiff, tmp_path: Path
) -> None:
    request = json.loads(EXAMPLE)
    request |= {
        "baseModel": str(tiny_animatediff.base),
        "motionAdapter": str(tiny_animatediff.motion_adapter) + "/",
        "imagePath": str(studio.picture),
        "outputPath": str(tmp_path / "video_001.mp4"),
        "numInferenceSteps": 3,
        "width": 64,
        "height": 64,
    }
    finished = studio.run(json.dumps(request))
    assert finished.code == 0, finished
    response = finished.response
    assert set(response) == {"status", "output", "metadata"}
    assert (response["status"], response["output"]) == ("success", request["outputPath"])
    metadata = response["metadata"]
    same = ("pipeline", "prompt", "numFrames", "fps", "seed")
    assert {key: metadata[key] for key in same} == {key: request[key] for key in same}
    assert metadata["model"] == tiny_animatediff.base.name
    assert (metadata["duration"], metadata["resolution"]) == (3.0, "64x64")
    for key in ("duration", "generationTime", "vramUsed"):
        assert isinstance(metadata[key], float)
    assert metadata["generationTime"] > 0
    assert len(metadata["modelHash"]) == 64 and int(metadata["modelHash"], 16)
    assert any("sliding windows" in note for note in metadata["notes"])
    assert any("motionBucketId is ignored" in note for note in metadata["notes"])
    assert_good_progress(finished.progress)
    info = probe(Path(response["output"]))
    assert (info.frames, info.width, info.height, info.fps) == (48, 64, 64, 16)


# --- wrong input, one process for all ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"prompt": ""}, "empty_prompt"),
        ({"prompt": None}, "empty_prompt"),
        ({"imagePath": None}, "missing_parameter"),
        ({"imagePath": "/nowhere/photo.jpg"}, "image_not_found"),
        ({"imagePath": "example:nothing"}, "image_not_found"),
        ({"numFrame": 3}, "unknown_parameter"),
        ({"fps": 0}, "out_of_range"),
        ({"seed": 2**31}, "out_of_range"),
        ({"fps": "8"}, "invalid_value"),
        ({"width": 65}, "invalid_size"),
        ({"outputPath": "clip.avi"}, "invalid_value"),
        ({"outputPath": "clip"}, "invalid_value"),
        ({"outputPath": "clip.gif", "outputFormat": "mp4"}, "invalid_value"),
        ({"imagePath": "a\0b"}, "image_not_found"),
    ],
)
def test_wrong_input(studio: Studio, changes: dict[str, Any], code: str) -> None:
    response = studio.make(**changes)
    assert_error(response, code, "input")
    assert str(next(iter(changes))) in response["message"] or code in (
        "empty_prompt",
        "image_not_found",
        "invalid_size",
    )


def test_odd_size_names_the_nearest(studio: Studio) -> None:
    response = studio.make(width=70, height=61)
    assert (
        response["suggestions"] == ["Set width to 64 and height to 64"] or "nearest valid size" in response["message"]
    )
    width, height = response["message"].split("nearest valid size is ")[1].rstrip(".").split("x")
    changes = {"width": int(width), "height": int(height), "outputPath": str(studio.output / "nearest.mp4")}
    assert studio.make(**changes)["status"] == "success"


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "folder"])
def test_damaged_pictures(studio: Studio, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "photo.png"
    if damage == "folder":
        path.mkdir()
    else:
        content = {"truncated": studio.picture.read_bytes()[:500], "text": b"no picture", "empty": b""}[damage]
        path.write_bytes(content)
    assert_error(studio.make(imagePath=str(path)), "invalid_image", "input")


def test_missing_models_are_the_systems(studio: Studio) -> None:
    assert_error(studio.make(baseModel="nothing"), "model_not_found", "system")
    unknown = studio.make(pipeline="animatediff", baseModel=None, motionAdapter="nothing")
    assert_error(unknown, "model_not_found", "system")
    assert_error(studio.make(baseModel=str(studio.output)), "invalid_model", "system")


def test_unwritable_output_folder(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file where a folder should be")
    response = studio.make(outputPath=str(tmp_path / "output" / "clip.mp4"))
    assert_error(response, "output_not_writable", "system")
    assert names(tmp_path) == ["output"]


def test_existing_output_is_kept_unless_told(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("mine")
    assert_error(studio.make(outputPath=str(path)), "output_exists", "input")
    assert (path.read_text(), names(tmp_path)) == ("mine", ["clip.mp4"])
    assert studio.make(outputPath=str(path), overwrite=True)["status"] == "success"
    assert probe(path).frames == 3


def test_no_output_path_means_a_dated_name(studio: Studio) -> None:
    response = studio.make()
    path = Path(response["output"])
    assert path.parent == studio.home / "output"
    assert path.name.endswith("_photo_7.mp4") and path.name[:2] == "20"
    assert path.is_file()


# --- exit codes and ways in -------------------------------------------------------------------------------------------


def test_exit_code_1_for_a_failed_generation(studio: Studio, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(studio.home / "models" / "small", broken)
    file = next((broken / "vae").glob("*.safetensors"))
    save_file({name: np.full_like(weight, np.nan) for name, weight in load_file(file).items()}, file)
    (tmp_path / "output").mkdir()
    request = studio.request(baseModel=str(broken), outputPath=str(tmp_path / "output" / "clip.mp4"))
    finished = studio.run(json.dumps(request))
    assert_error(finished.response, "corrupted_output", "generation")
    assert finished.code == 1
    assert names(tmp_path / "output") == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
def test_exit_code_4_for_a_full_disk(studio: Studio, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    request = studio.request(outputPath=str(tmp_path / "clip.mp4"))
    finished = studio.run(json.dumps(request), preexec_fn=limit)
    assert_error(finished.response, "disk_full", "critical")
    assert finished.code == 4
    assert names(tmp_path) == []


def test_exit_code_2_and_every_way_in(studio: Studio, tmp_path: Path) -> None:
    """One wrong request by every way: the answer shows that it arrived, and none needs a worker."""
    wrong = {"imagePath": "photo.jpg", "prompt": "x", "fps": 0}
    text = json.dumps(wrong)
    file = tmp_path / "request.json"
    file.write_text(text)
    script = (sys.executable, str(ROOT / "generate.py"))
    ways = [
        studio.run(text),
        studio.run(text, command=(VIDKIT, "generate")),
        studio.run(text, command=script, cwd=tmp_path),
        studio.run("-", stdin=text.encode()),
        studio.run(stdin=text.encode()),
        studio.run(stdin=b"\xef\xbb\xbf" + text.encode()),  # as .NET and Notepad begin their UTF-8
        studio.run(stdin=text.encode("utf-16")),  # as older PowerShells redirect
        studio.run("--request", file),
        studio.run("--image-path", "photo.jpg", "--prompt", "x", "--fps", "0"),
    ]
    for finished in ways:
        assert_error(finished.response, "out_of_range", "input")
        assert finished.code == 2
        assert "fps is 0" in finished.response["message"]
        assert (finished.progress, finished.log) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "part"),
    [
        ([], None, "invalid_request", "No request"),
        (["-"], b" \n", "invalid_request", "empty"),
        (["--request", "nowhere.json"], None, "invalid_request", "nowhere.json"),
        (["{'prompt': 1}"], None, "invalid_json", "argument"),
        (["[" * 100_000], None, "invalid_json", "argument"),
        (["[1]"], None, "invalid_json", "not a JSON object"),
        (["{}", "too much"], None, "invalid_request", "too much"),
        (["--num-frame", "3"], None, "unknown_parameter", "--num-frames"),
        (["--fps", "many"], None, "invalid_value", "--fps"),
        (["--fps"], None, "invalid_request", "--fps"),
        (["--from", "nowhere.mp4"], None, "clip_not_found", "nowhere.mp4"),
        (["--jsonl", "--fps", "3"], None, "invalid_request", "--fps"),
    ],
)
def test_wrong_command_lines(studio: Studio, arguments: list[str], stdin: bytes | None, code: str, part: str) -> None:
    finished = studio.run(*arguments, stdin=stdin)
    assert_error(finished.response, code, "input")
    assert finished.code == 2
    assert part in finished.response["message"]


def test_closed_streams(studio: Studio) -> None:
    """Closed before we begin: no input, and nowhere but stdout for the response."""
    shell = f'"{sys.executable}" -m vidkit generate "$@"'
    wrong = json.dumps({"imagePath": "nowhere.png", "prompt": "x"})
    for redirection, argument, code in [("<&-", (), "invalid_request"), ("2>&-", (wrong,), "image_not_found")]:
        finished = studio.run(*argument, command=("sh", "-c", f"{shell} {redirection}", "sh"))
        assert_error(finished.response, code, "input")  # the response alone: no progress beside it
        assert finished.code == 2
    finished = studio.run(wrong, command=("sh", "-c", f"{shell} > /dev/full", "sh"))
    assert finished.code != 0 and not any("Traceback" in line for line in finished.log)
    command = f"{{ {shell}; echo code $? >&2; }} | head -c0"
    finished = studio.run(wrong, command=("sh", "-c", command, "sh"))
    assert "code 2" in finished.log and not any("Traceback" in line for line in finished.log)


# --- clips and what is made of them -----------------------------------------------------------------------------------


def test_show(studio: Studio) -> None:
    clip = studio.clip("clip.mp4")
    finished = studio.run(clip, command=(VIDKIT, "show"))
    assert (finished.code, finished.log) == (0, [])
    shown = finished.response
    assert shown == read_record(clip)
    assert shown["request"]["seed"] == 7 and shown["request"]["numFrames"] == 3
    assert shown["models"]["baseModel"]["name"] == "small"
    assert shown["digitalSourceType"] == AI_GENERATED["digitalSourceType"]
    assert str(studio.home) not in finished.stdout and str(studio.picture.parent) not in finished.stdout
    finished = studio.run("nowhere.mp4", command=(VIDKIT, "show"))
    assert (finished.code, finished.response["code"]) == (2, "clip_not_found")


def test_precedence(studio: Studio, tmp_path: Path) -> None:
    """clip < file < standard input < argument < options; told by which value the refusal names."""
    clip = studio.clip("clip.mp4", fps=8)
    file = tmp_path / "request.json"
    # standard input and the argument exclude each other: "-" is the argument that asks for standard input
    file.write_text(json.dumps({"fps": 201, "num_frames": 5001, "seed": None, "prompt": ""}))
    stdin = json.dumps({"fps": 202, "num_inference_steps": 5002}).encode()
    argument = json.dumps({"fps": 203, "decodeChunkSize": 5003})
    least = ["--from", clip, "--request", file]
    assert "fps is 201" in studio.run(*least).response["message"]
    message = studio.run(*least, "-", stdin=stdin).response["message"]
    for part in ("fps is 202", "numFrames is 5001", "numInferenceSteps is 5002", "prompt is empty"):
        assert part in message
    assert "seed" not in message  # null takes nothing from the clip
    message = studio.run(*least, argument).response["message"]
    assert "fps is 203" in message and "decodeChunkSize is 5003" in message
    assert "fps is 204" in studio.run(*least, argument, "--fps", "204").response["message"]


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_from_clip_makes_the_same_frames_without_the_picture(studio: Studio, tmp_path: Path, suffix: str) -> None:
    picture = save_picture(tmp_path / "gone.png", (200, 80))
    clip, target = tmp_path / f"clip.{suffix}", tmp_path / f"again.{suffix}"
    made = studio.make(imagePath=str(picture), outputPath=str(clip), seed=-1)
    assert made["status"] == "success", made
    picture.unlink()
    if suffix == "mp4":
        finished = studio.run("--from", clip, "--output-path", target)
        assert finished.code == 0, finished
        response = finished.response
    else:  # the same request in the warm session: a process that loads its libraries takes seconds
        response, _ = studio.session.ask(from_command_line("--from", str(clip), "--output-path", str(target)))
        assert response["status"] == "success", response
    assert response["metadata"]["seed"] == made["metadata"]["seed"]
    first, again = read_frames(clip), read_frames(target)
    assert len(first) == 3
    assert np.array_equal(first, again)


def test_a_clip_as_picture(studio: Studio, tmp_path: Path) -> None:
    """WebM stores its picture too, in the sidecar."""
    webm = studio.clip("clip.webm")
    assert probe(webm).frames == 3
    mp4 = tmp_path / "again.mp4"
    response = studio.make(imagePath=str(webm), outputPath=str(mp4))
    assert response["status"] == "success", response
    assert np.array_equal(read_frames(mp4), read_frames(studio.clip("clip.mp4")))


def test_output_path_takes_the_format_of_a_clip_back(studio: Studio) -> None:
    merged = from_command_line("--from", str(studio.clip("clip.mp4")), "--output-path", "x.gif")
    assert GenerationParams(**merged).output_format is None


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webm"])
def test_bare(studio: Studio, suffix: str) -> None:
    clip = studio.clip(f"bare.{suffix}", bare=True)
    assert read_record(clip) == dict(AI_GENERATED)
    assert not clip.with_name(clip.name + ".json").exists()
    finished = studio.run("--from", clip)
    assert_error(finished.response, "invalid_clip", "input")
    assert finished.code == 2 and "bare" in finished.response["message"]


# --- quick to start ---------------------------------------------------------------------------------------------------


def seconds(*command: str) -> float:
    """Of a core, whatever else the machine does meanwhile."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_import_and_help_are_quick() -> None:
    assert any(seconds(sys.executable, "-c", "import vidkit") < 0.3 for _ in range(5))
    assert any(seconds(VIDKIT, "--help") < 0.5 for _ in range(5))


@pytest.mark.parametrize("statement", ["import vidkit", "import vidkit.cli; vidkit.cli.main(['--help'])"])
def test_import_and_help_load_nothing_heavy(statement: str) -> None:
    heavy = "torch numpy ipywidgets PIL diffusers transformers IPython"
    code = f"""
import sys
try:
    {statement}
except SystemExit:
    pass
sys.exit(" ".join(name for name in "{heavy}".split() if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_help_names_every_parameter_with_its_values() -> None:
    text = run("--help").stdout
    for name in GenerationParams.model_fields:
        assert "--" + name.replace("_", "-") in text
    assert "{crop,pad,stretch}" in text


def test_errors_of_the_schema_reach_python_too() -> None:
    with pytest.raises(InputError):
        GenerationParams(imagePath="photo.jpg", prompt="")
