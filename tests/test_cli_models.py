"""`vidkit models` as people and programs see it: real processes, real files."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from checkpoint_headers import base_checkpoint, motion_adapter, write_sparse
from command_line import Finished, Running, environment, run, sorted_out, wait_for
from model_server import ModelServer, Served, sha256
from safetensors.torch import load_file

from vidkit.cli import main
from vidkit.models.catalogue import catalogue
from vidkit.models.locate import BUNDLED_FOLDER
from vidkit.models.registry import find_registered, registered, registry_file
from vidkit.settings import Settings

pytestmark = pytest.mark.usefixtures("signals_restored")

VIDKIT = str(Path(sys.executable).with_name("vidkit"))
SETTINGS = Settings()
ADAPTER = BUNDLED_FOLDER / "tiny-motion-adapter"


@pytest.fixture
def models(vidkit_home: Path) -> Path:
    folder = vidkit_home / "models"
    folder.mkdir()
    return folder


def call(*arguments: str | Path) -> Finished:
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        code = main(["models", *map(str, arguments)])
    return Finished(code, stdout.getvalue(), *sorted_out(stderr.getvalue().splitlines()))


def told(*arguments: str | Path, code: int = 0) -> Finished:
    """What `vidkit models` says to a person; every line fits 80 columns, but for a path or an address."""
    finished = call(*arguments)
    assert finished.code == code, finished
    for line in finished.stdout.splitlines():
        assert len(line) <= 80 or any("/" in word and len(word) > 40 for word in line.split()), line
    return finished


def answer(*arguments: str | Path, code: int = 0) -> dict[str, object]:
    """The JSON document."""
    finished = call(*arguments, *(["--json"] if code == 0 else []))
    assert finished.code == code, finished
    return finished.response


def refused(*arguments: str | Path, code: str, exit_code: int = 3) -> dict[str, object]:
    response = answer(*arguments, code=exit_code)
    assert (response["status"], response["code"]) == ("error", code)
    return response


def by_name(response: dict[str, object]) -> dict[str, dict[str, object]]:
    return {model["name"]: model for model in response["models"]}  # type: ignore[attr-defined,index,misc]


# --- list


def test_models_alone_prints_the_list(models: Path) -> None:
    assert "bundled:tiny-svd" in told("list").stdout
    assert told().stdout == told("list").stdout == run(command=(VIDKIT, "models")).stdout


def test_the_list_tells_what_is_there_and_what_goes_with_what(models: Path, tmp_path: Path) -> None:
    write_sparse(models / "realistic" / "model.safetensors", base_checkpoint("SD 1.5"))
    write_sparse(models / "juggernaut.safetensors", base_checkpoint("SDXL"))
    elsewhere = write_sparse(tmp_path / "v2.safetensors", motion_adapter(mid_block=True))
    (models / "notes.safetensors").write_bytes(b"<html>not found</html>")
    answer("add", elsewhere, "--name", "motion")
    listed = by_name(answer("list"))
    assert listed["realistic/model.safetensors"]["what"] == "SD 1.5 base model"
    assert listed["juggernaut.safetensors"]["architecture"] == "SDXL"
    assert listed["motion"]["goesWith"] == ["realistic/model.safetensors"]
    assert listed["motion"]["registered"]["type"] == "motion_adapter"  # type: ignore[index]
    assert listed["bundled:tiny-motion-adapter"]["goesWith"] == ["bundled:tiny-animatediff"]
    assert listed["realistic/model.safetensors"]["goesWith"] is None
    assert listed["notes.safetensors"]["problem"] and listed["notes.safetensors"]["kind"] is None
    text = told("list").stdout
    assert f"In {models}" in text and f"Registered in {registry_file(SETTINGS)}" in text
    assert "    goes with realistic/model.safetensors\n" in text
    assert "\n    not usable:" in text


def test_a_registered_model_that_is_gone_is_listed_as_missing(models: Path) -> None:
    registry_file(SETTINGS).write_text(r'{"svd": {"svd-xt": {"path": "D:\\models\\svd-xt", "size": "10GB"}}}')
    assert by_name(answer("list"))["svd-xt"]["problem"] == r"Nothing is at D:\models\svd-xt."
    assert r"Nothing is at D:\models\svd-xt." in told().stdout


def test_a_broken_registry_is_a_typed_error(models: Path) -> None:
    registry_file(SETTINGS).write_text("{")
    assert "models.json" in str(refused("list", code="invalid_config")["message"])
    assert "models.json" in str(refused("add", ADAPTER, code="invalid_config")["message"])
    assert registry_file(SETTINGS).read_text() == "{"


def test_what_can_be_downloaded_is_told_with_licence_needs_and_limits(models: Path) -> None:
    available = answer("list", "--available")["available"]
    assert [one["name"] for one in available] == [one.name for one in catalogue()]  # type: ignore[attr-defined]
    text = told("list", "--available").stdout
    for part in ("svd-xt ", "Stable Video Diffusion XT", "4.50 GB", "guidance 1 to 2", "needs an SD 1.5 base model"):
        assert part in text
    assert "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt" in text  # to accept its licence
    assert "available" not in answer("list")


# --- inspect


def test_a_ten_gigabyte_file_is_inspected_at_once(models: Path, tmp_path: Path) -> None:
    file = write_sparse(tmp_path / "big.safetensors", base_checkpoint("SDXL", "F32"))
    assert file.stat().st_size > 10e9
    found = answer("inspect", file)
    assert (found["kind"], found["architecture"], found["dtypes"]) == ("base model", "SDXL", ["float32"])
    assert found["size"] == file.stat().st_size
    assert "SDXL base model" in told("inspect", file).stdout


def test_compatibility_is_told_in_words(models: Path, tmp_path: Path) -> None:
    write_sparse(models / "sdxl.safetensors", base_checkpoint("SDXL"))
    adapter = write_sparse(tmp_path / "v3.safetensors", motion_adapter(mid_block=False))
    found = answer("inspect", adapter, "--base", "sdxl.safetensors")
    assert found["base"]["compatible"] is False  # type: ignore[index]
    reason = found["base"]["reason"]  # type: ignore[index]
    assert "SD 1.5" in reason and "SDXL" in reason
    assert reason in " ".join(told("inspect", adapter, "--base", "sdxl.safetensors").stdout.split())
    fitting = answer("inspect", ADAPTER, "--base", "bundled:tiny-animatediff")
    assert fitting["base"] == {"model": "bundled:tiny-animatediff", "compatible": True, "reason": None}


def test_what_is_unknown_or_not_there_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    assert "x.safetensors" in str(refused("inspect", tmp_path / "x.safetensors", code="invalid_model")["message"])
    missing = refused("inspect", "bundled:tiny-swd", code="model_not_found")
    assert missing["suggestions"][0] == "Did you mean bundled:tiny-svd?"  # type: ignore[index]


@pytest.mark.parametrize(
    "verb", ["list --available", "inspect bundled:tiny-svd", "add ADAPTER", "remove tiny-motion-adapter"]
)
def test_no_torch_is_loaded(models: Path, verb: str) -> None:
    if verb.startswith("remove"):
        answer("add", ADAPTER)
    given = ["models", *verb.replace("ADAPTER", str(ADAPTER)).split()]
    code = (
        f"import sys; from vidkit.cli import main; assert main({given!r}) == 0;"
        "assert not {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'httpx', 'ipywidgets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# --- add and remove


def test_a_model_is_added_found_and_taken_off(models: Path, tmp_path: Path) -> None:
    shutil.copytree(ADAPTER, tmp_path / "My adapter, v1")
    added = answer("add", tmp_path / "My adapter, v1")
    name = "My adapter- v1"
    assert added == {"status": "success", "name": name, "family": "custom", "path": str(tmp_path / "My adapter, v1")}
    entry = find_registered(name, SETTINGS)
    assert entry is not None
    told_of_it = {"type": "motion_adapter", "size": "4.7 MB", "description": "PIA motion adapter"}
    assert dict(entry.fields) == {"name": name, "path": added["path"], **told_of_it}
    assert answer("inspect", name)["kind"] == "motion adapter"
    assert "the files" not in told("remove", name).stdout
    assert registered(SETTINGS) == [] and (tmp_path / "My adapter, v1").is_dir()
    refused("remove", name, code="model_not_found")


def test_names_families_and_types_can_be_given(models: Path, tmp_path: Path) -> None:
    file = write_sparse(tmp_path / "thing" / "model.safetensors", base_checkpoint("SD 1.5"))
    assert answer("add", file)["name"] == "thing"  # model.safetensors says nothing
    entry = find_registered("thing", SETTINGS)
    assert entry is not None and (entry.family, entry.text("type")) == ("animatediff", "sd15")
    answer("add", file, "--name", "realistic", "--family", "photo", "--type", "checkpoint")
    assert [(one.name, one.family, one.text("type")) for one in registered(SETTINGS)] == [
        ("realistic", "photo", "checkpoint")
    ]
    assert answer("add", file)["name"] == "realistic"  # again: it keeps its name
    other = write_sparse(tmp_path / "realistic" / "model.safetensors", base_checkpoint("SD 1.5"))
    assert answer("add", other)["name"] == "realistic-2"
    refused("add", other, "--name", "realistic", code="invalid_value", exit_code=2)
    refused("add", other, "--name", "a/b", code="invalid_value", exit_code=2)


@pytest.mark.parametrize(("path", "code"), [("/no/such/model", "model_not_found"), (".", "invalid_model")])
def test_what_is_no_model_is_not_added(models: Path, path: str, code: str) -> None:
    refused("add", path, code=code)
    assert not registry_file(SETTINGS).exists()


def test_files_are_deleted_only_when_asked_twice_and_only_in_the_models_folder(models: Path, tmp_path: Path) -> None:
    shutil.copytree(ADAPTER, models / "inside")
    shutil.copytree(ADAPTER, tmp_path / "outside")
    answer("add", models / "inside", "--name", "inside-name")
    answer("add", tmp_path / "outside")
    asked = refused("remove", "inside-name", "--files", code="invalid_request", exit_code=2)
    assert asked["suggestions"] == ["Add --yes to delete it"]
    refused("remove", "outside", "--files", "--yes", code="invalid_value", exit_code=2)
    refused("remove", "bundled:tiny-svd", "--files", "--yes", code="invalid_value", exit_code=2)
    refused("remove", str(models), "--files", "--yes", code="invalid_value", exit_code=2)
    assert (models / "inside").is_dir() and (tmp_path / "outside").is_dir() and len(registered(SETTINGS)) == 2
    gone = answer("remove", "inside-name", "--files", "--yes")
    assert gone["deleted"] == [str(models / "inside")]
    assert sorted(path.name for path in models.iterdir()) == [".models.json.lock", "models.json"]
    assert [entry.name for entry in registered(SETTINGS)] == ["outside"]


def test_of_two_entries_of_a_name_the_one_that_goes_is_the_one_whose_files_go(models: Path) -> None:
    shutil.copytree(ADAPTER, models / "inside")
    entries = {"svd": {"mine": {"path": "/gone"}}, "animatediff": {"mine": {"path": str(models / "inside")}}}
    registry_file(SETTINGS).write_text(json.dumps(entries))
    assert answer("remove", "mine", "--files", "--yes")["deleted"] == [str(models / "inside")]
    assert [(entry.family, entry.written) for entry in registered(SETTINGS)] == [("svd", "/gone")]


def test_a_link_is_deleted_not_what_it_leads_to(models: Path, tmp_path: Path) -> None:
    (models / "linked.safetensors").symlink_to(ADAPTER / "diffusion_pytorch_model.safetensors")
    done = told("remove", "linked.safetensors", "--files", "--yes")
    assert "its links are deleted, what they led to is not" in done.stdout
    assert not (models / "linked.safetensors").is_symlink()
    assert (ADAPTER / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize(("typed", "stays"), [(b"n\n", True), (b"y\n", False)])
def test_on_a_terminal_deleting_is_asked(models: Path, typed: bytes, stays: bool) -> None:
    shutil.copytree(ADAPTER, models / "inside")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [VIDKIT, "models", "remove", "inside", "--files"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, typed)
    _, question = process.communicate(timeout=30)
    os.close(ours)
    assert b"Delete " in question and str(models / "inside").encode() in question
    assert process.returncode == (130 if stays else 0)
    assert (models / "inside").is_dir() == stays


# --- verify


def test_verify_finds_a_byte_that_changed(models: Path) -> None:
    shutil.copytree(ADAPTER, models / "mine")
    first = by_name(answer("verify"))
    assert set(first) == {"bundled:tiny-animatediff", "bundled:tiny-motion-adapter", "bundled:tiny-svd", "mine"}
    assert all(one["ok"] for one in first.values())
    assert "nothing is known to compare it with" in str(first["mine"]["message"])
    assert "As an earlier look says." in told("verify", "mine").stdout
    file = models / "mine" / "diffusion_pytorch_model.safetensors"
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # a disk that goes bad tells no time
    finished = told("verify", "mine", code=3)
    assert "BAD  mine" in finished.stdout and "diffusion_pytorch_model.safetensors" in finished.stdout


def test_verify_compares_with_the_registry(models: Path, tmp_path: Path) -> None:
    answer("add", ADAPTER, "--name", "adapter")
    found = by_name(answer("verify", "adapter"))["adapter"]
    file = registry_file(SETTINGS)
    content = json.loads(file.read_text())
    content["custom"][0]["sha256"] = found["sha256"]
    file.write_text(json.dumps(content))
    assert str(by_name(answer("verify", "adapter"))["adapter"]["message"]).startswith("As the registry")
    content["custom"][0]["sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    finished = call("verify", "adapter", "--json")
    assert (finished.code, finished.response["status"]) == (3, "error")
    assert found["sha256"] in finished.response["models"][0]["message"]
    assert finished.progress[-1]["progress"] == 100 and not finished.log  # JSON lines alone


def test_verify_tells_of_what_is_cut_off_or_gone(models: Path) -> None:
    shutil.copytree(ADAPTER, models / "mine")
    file = models / "mine" / "diffusion_pytorch_model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    registry_file(SETTINGS).write_text('{"svd": {"gone": {"path": "/gone"}}}')
    finished = call("verify", "--json")
    results = by_name(finished.response)
    assert finished.code == 3
    assert [name for name, result in results.items() if not result["ok"]] == ["mine", "gone"]
    refused("verify", "nothing-of-that-name", code="model_not_found")


# --- download and convert


def test_a_model_is_downloaded_and_can_be_used_by_its_name(models: Path, vidkit_home: Path) -> None:
    content = (ADAPTER / "diffusion_pytorch_model.safetensors").read_bytes()
    with ModelServer().running() as server:
        server.files["/motion.safetensors"] = Served(content)
        given = (f"{server.url}/motion.safetensors", "--name", "motion", "--sha256", sha256(content), "--json")
        finished = run("download", *given, command=(VIDKIT, "models"))
    assert (finished.code, finished.response["name"], finished.log) == (0, "motion", []), finished
    assert finished.progress[-1]["progress"] == 100
    assert by_name(answer("list"))["motion"]["what"] == "PIA motion adapter"
    assert str(by_name(answer("verify", "motion"))["motion"]["message"]).startswith("As the registry")
    refused("download", "svd-xy", code="model_not_found")


def test_a_download_is_cancelled_by_a_signal(models: Path, vidkit_home: Path) -> None:
    content = (ADAPTER / "diffusion_pytorch_model.safetensors").read_bytes()
    with ModelServer().running() as server:
        server.files["/motion.safetensors"] = Served(content, slow=0.2)
        command = (VIDKIT, "models", "download")
        with Running(f"{server.url}/motion.safetensors", "--json", command=command, env=environment(vidkit_home)) as it:
            wait_for(lambda: it.progress, seconds=20)
            it.process.terminate()
            finished = it.finish()
    assert (finished.code, finished.response["code"]) == (130, "cancelled")
    assert registered(SETTINGS) == []


def test_a_pickle_is_converted(models: Path, tmp_path: Path) -> None:
    tensors = load_file(ADAPTER / "diffusion_pytorch_model.safetensors")
    torch.save({"state_dict": tensors}, models / "old.ckpt")
    done = answer("convert", "old.ckpt")
    assert done == {"status": "success", "path": str(models / "old.safetensors")}
    converted = load_file(models / "old.safetensors")
    assert all(torch.equal(converted[key], value) for key, value in tensors.items())
    refused("convert", "old.ckpt", code="output_not_writable")
    told("convert", "old.ckpt", tmp_path / "other.safetensors")
    assert (tmp_path / "other.safetensors").is_file()


def test_help_names_every_verb() -> None:
    text = run("--help", command=(VIDKIT, "models")).stdout
    for verb in ("list", "inspect", "download", "add", "remove", "verify", "convert"):
        assert f"\n    {verb} " in text
    refused("lst", code="invalid_request", exit_code=2)
