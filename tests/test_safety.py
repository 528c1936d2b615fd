"""What is acknowledged once: the text, how it is given and taken back, and what is refused without it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import clips
import pytest
from command_line import run

import vidkit
from vidkit import GenerationParams, generation
from vidkit.cli import make_parser
from vidkit.cli_output import Output
from vidkit.cli_safety import run_acknowledge
from vidkit.errors import CODES, InputError, SetupError
from vidkit.models.files.content_hash import hash_model
from vidkit.models.locate import Model, describe
from vidkit.models.registry import register, registry_file
from vidkit.panel.outlook import outlook_of
from vidkit.record import request_from_clip
from vidkit.runs import content_key
from vidkit.safety.acknowledgement import TEXT, VERSION, acknowledge, is_acknowledged, withdraw
from vidkit.safety.marks import is_marked, marked_model
from vidkit.safety.screening import NONE, screening_of
from vidkit.settings import config_path, load_settings, update_settings
from vidkit.sweep.plan import make_plan
from vidkit.video import read_record

VIDKIT = (sys.executable, "-m", "vidkit")


def config() -> dict[str, Any]:
    content = json.loads(config_path().read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


# --- giving it


def test_the_text_speaks_of_all_four() -> None:
    for word in ("full age", "responsible", "consent", "law"):
        assert word in TEXT
    assert all(len(line) <= 120 for line in TEXT.splitlines())


def test_it_is_kept_with_its_date_and_version_and_taken_back() -> None:
    update_settings(defaultModels={"svd": "mine"}, safety={"checker": "on"})
    when = acknowledge(accept=True)
    assert datetime.now(UTC) - datetime.fromisoformat(when) < timedelta(minutes=1)
    kept = {"checker": "on", "acknowledged": when, "acknowledgedVersion": VERSION}
    assert config() == {"defaultModels": {"svd": "mine"}, "safety": kept}
    assert is_acknowledged(load_settings())
    withdraw()
    assert config() == {"defaultModels": {"svd": "mine"}, "safety": {"checker": "on"}}
    assert not is_acknowledged(load_settings())


def test_without_accepting_the_text_is_shown_and_nothing_is_kept() -> None:
    with pytest.raises(SetupError) as caught:
        vidkit.acknowledge()
    assert caught.value.message == TEXT
    assert not config_path().exists()


def test_a_new_text_has_to_be_acknowledged_anew() -> None:
    acknowledge(accept=True)
    safety = config()["safety"]
    update_settings(safety={**safety, "acknowledgedVersion": VERSION - 1, "checker": "off"})
    with pytest.raises(SetupError, match=f"on {safety['acknowledged'][:10]} has a new text"):
        screening_of({}, load_settings())


def test_a_broken_settings_file_is_left_as_it_is() -> None:
    config_path().write_text('{"safety": 3}')
    with pytest.raises(SetupError) as caught:
        acknowledge(accept=True)
    assert caught.value.code == "invalid_config"
    assert config_path().read_text() == '{"safety": 3}'


@pytest.mark.parametrize(
    "safety", [{"checker": "maybe"}, {"acknowledged": "yes"}, {"acknowledged": True}, {"acknowledgedVersion": True}]
)
def test_what_is_no_setting_is_told(safety: dict[str, Any]) -> None:
    update_settings(safety=safety)
    with pytest.raises(SetupError, match=rf"safety\.{next(iter(safety))}"):
        load_settings()


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    update_settings(safety={"checker": "on"})
    monkeypatch.setenv("VIDKIT_SAFETY_CHECKER", "OFF")
    assert load_settings().safety.checker == "off"


# --- on the command line


def test_a_script_says_so_with_a_flag() -> None:
    asked = run("acknowledge", command=VIDKIT)
    assert asked.code == 2
    assert not config_path().exists()
    assert any("--i-have-read-and-accept" in text for text in asked.response["suggestions"])
    assert run("acknowledge", "--i-have-read-and-accept", command=VIDKIT).code == 0
    assert is_acknowledged(load_settings())


def test_it_is_shown_and_withdrawn(capsys: pytest.CaptureFixture[str]) -> None:
    acknowledge(accept=True)
    output = Output()
    run_acknowledge(options_of("--text", "--json"), output)
    told = json.loads(capsys.readouterr().out)
    assert told == {"acknowledged": config()["safety"]["acknowledged"], "version": VERSION, "text": TEXT}
    run_acknowledge(options_of("--withdraw"), output)
    run_acknowledge(options_of("--text"), output)
    shown = capsys.readouterr().out
    assert TEXT in shown and shown.endswith("Not acknowledged.\n")


def options_of(*arguments: str) -> argparse.Namespace:
    return make_parser().parse_args(["acknowledge", *arguments])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals for tests")
@pytest.mark.parametrize(("typed", "accepted"), [("i  ACCEPT\n", True), ("yes\n", False), ("\n", False)])
def test_a_person_types_it_on_a_terminal(typed: str, accepted: bool) -> None:
    import pty
    import subprocess

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*VIDKIT, "acknowledge"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(ours, typed.encode())
        stdout, stderr = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert TEXT in stderr.decode()
    assert process.returncode == (0 if accepted else 130)
    assert stdout.decode().startswith("Acknowledged on " if accepted else '{"status": "error"')
    assert config_path().exists() == accepted


def test_it_is_not_set_like_any_setting() -> None:
    refused = run("config", "safety.acknowledged", "2026-01-01T00:00:00+00:00", command=VIDKIT)
    assert refused.code == 2
    assert "vidkit acknowledge" in json.dumps(refused.response)
    assert not config_path().exists()


def test_the_remedies_of_the_page_are_the_command() -> None:
    assert "`vidkit acknowledge`" in CODES["system"]["acknowledgement_needed"].remedies[0]


# --- models that are marked


def mark(path: Path, name: str = "marked", nsfw: Any = True, **fields: Any) -> None:
    register(load_settings(), path, name, "svd", nsfw=nsfw, **fields)


def request(model: Path | str, folder: Path, **more: Any) -> dict[str, Any]:
    more = {"output_path": str(folder / "clip.mp4"), **more}
    return {**clips.svd_request(Path("any"), clips.saved(folder), **more), "base_model": str(model)}


def refused(model: Path | str, folder: Path, **more: Any) -> SetupError:
    with pytest.raises(SetupError) as caught:
        vidkit.generate(request(model, folder, **more))
    assert caught.value.code == "acknowledgement_needed"
    assert not (folder / "clip.mp4").exists()
    return caught.value


@pytest.mark.usefixtures("no_warm_pipeline")
def test_a_marked_model_is_refused_until_it_is_acknowledged(tmp_path: Path, tiny_svd_folder: Path) -> None:
    mark(tiny_svd_folder)
    error = refused("marked", tmp_path)
    assert "The model 'marked', which the registry marks as made for adult pictures (nsfw), needs" in error.message
    assert error.suggestions[0] == "Read it and give it: vidkit acknowledge"
    assert error.concerns == ("base_model",)
    acknowledge(accept=True)
    assert vidkit.generate(request("marked", tmp_path)).output.is_file()
    withdraw()
    (tmp_path / "clip.mp4").rename(tmp_path / "made.mp4")
    with pytest.raises(SetupError, match="acknowledgement"):
        vidkit.generate(request_from_clip(tmp_path / "made.mp4"))


def test_by_whatever_path_it_is_named(tmp_path: Path, tiny_svd_folder: Path) -> None:
    mark(tiny_svd_folder)
    refused(tiny_svd_folder, tmp_path)
    refused(tiny_svd_folder / ".." / tiny_svd_folder.name, tmp_path)
    link = tmp_path / "link"
    try:
        link.symlink_to(tiny_svd_folder)
    except OSError:
        pytest.skip("no links here")
    refused(link, tmp_path)


def test_a_copy_is_marked_too(tmp_path: Path, tiny_svd_folder: Path) -> None:
    mark(tmp_path / "the original is gone", sha256=hash_model(tiny_svd_folder, load_settings()))
    refused(tiny_svd_folder, tmp_path)


def test_a_copy_is_marked_where_the_registry_has_no_hash(tmp_path: Path) -> None:
    for name, content in (("one", b"same"), ("copy", b"same"), ("other", b"else")):
        (tmp_path / name).write_bytes(content)
    mark(tmp_path / "one")
    settings = load_settings()
    for name, is_marked_too in (("copy", True), ("other", False)):
        path = tmp_path / name
        models = {"base_model": Model(name, path, "")}
        found = marked_model(models, settings, {"base_model": hash_model(path, settings)})
        assert (found is not None) == is_marked_too


def test_a_marked_part_counts_as_the_base_does(tmp_path: Path, tiny_animatediff: Any) -> None:
    mark(tiny_animatediff.motion_adapter)
    with pytest.raises(SetupError) as caught:
        vidkit.generate(clips.animatediff_request(tiny_animatediff, clips.saved(tmp_path)))
    assert caught.value.concerns == ("motion_adapter",)


def test_what_is_not_plainly_a_no_is_a_mark(tiny_svd_folder: Path) -> None:
    assert [value for value in (True, "true", 1, "yes", "x", [1]) if not is_marked(value)] == []
    assert [value for value in (None, False, "false", "no", 0, "") if is_marked(value)] == []
    mark(tiny_svd_folder, nsfw=False)
    screening = screening_of({"base_model": describe(tiny_svd_folder)}, load_settings())
    assert screening.notes == (NONE,)


def test_a_registry_that_cannot_be_read_marks_all_but_the_bundled(tiny_svd_folder: Path) -> None:
    file = registry_file(load_settings())
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(SetupError) as caught:
        screening_of({"base_model": describe(tiny_svd_folder)}, load_settings())
    assert caught.value.code == "invalid_config"
    bundled = describe(Path(vidkit.__file__).parent / "models" / "bundled" / "tiny-svd")
    assert screening_of({"base_model": bundled}, load_settings()).notes == ()


# --- every way to a clip


def test_the_command_line_refuses_on_every_way(tmp_path: Path, tiny_svd_folder: Path) -> None:
    update_settings(safety={"checker": "off"})
    wanted = json.dumps(GenerationParams(**request(tiny_svd_folder, tmp_path)).to_wire())
    for told in (run(wanted), run("--jsonl", stdin=wanted.encode())):
        assert told.response["code"] == "acknowledgement_needed"
        assert told.response["suggestions"][0] == "Read it and give it: vidkit acknowledge"
    assert not (tmp_path / "clip.mp4").exists()


def test_a_sweep_says_so_before_anything_runs(tmp_path: Path, tiny_svd_folder: Path) -> None:
    mark(tiny_svd_folder)
    base = request(tiny_svd_folder, tmp_path)
    del base["seed"], base["output_path"]
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"base": base, "axes": {"seed": [1, 2]}}))
    with pytest.raises((SetupError, InputError), match="registry marks as made for adult pictures"):
        make_plan(file)
    acknowledge(accept=True)
    assert any(NONE in note for note in make_plan(file).notes)


@pytest.mark.parametrize(("here", "there"), [(True, "on"), (False, "auto")])
def test_a_clusters_machines_are_as_strict_as_who_started_the_sweep(
    monkeypatch: pytest.MonkeyPatch, here: bool, there: str
) -> None:
    from vidkit.sweep.ray_pool import Worker

    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "VIDKIT_LOG_EVERYWHERE"):  # which it sets too
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("VIDKIT_SAFETY_CHECKER", "auto")
    Worker(1, here)
    assert load_settings().safety.checker == there


def test_the_panel_runs_and_plans_ask_the_same(tmp_path: Path, tiny_svd_folder: Path) -> None:
    mark(tiny_svd_folder)
    params = GenerationParams(**request(tiny_svd_folder, tmp_path))
    outlook = outlook_of(params, load_settings(), lambda params, name: None)
    assert [problem.code for problem in outlook.problems] == ["acknowledgement_needed"]
    for ask in (content_key, vidkit.plan, generation.preload):
        with pytest.raises(SetupError, match="acknowledgement"):
            ask(params)


# --- every clip declares itself


@pytest.mark.parametrize(("suffix", "bare"), [("mp4", False), ("mp4", True), ("gif", True), ("webm", True)])
def test_every_clip_declares_that_it_is_ai_generated(
    tmp_path: Path, tiny_svd_folder: Path, suffix: str, bare: bool
) -> None:
    target = tmp_path / f"clip.{suffix}"
    vidkit.generate(request(tiny_svd_folder, tmp_path, output_path=str(target), bare=bare))
    record = read_record(target)
    assert record["declaration"] == "AI-generated"
    assert record["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert ("request" in record) != bare
    assert b"AI-generated" in target.read_bytes()
