"""A request as text: each language gives the same request again, read by what really reads it."""

from __future__ import annotations

import ast
import json
import shlex
import textwrap
import threading
from pathlib import Path
from typing import Any, get_args

import pytest
from papermill.iorw import read_yaml_file

from vidkit.cli import make_parser, merged_request, parse_json
from vidkit.panel.copy_as import LANGUAGES, CopyView, Language, copy_as
from vidkit.params import GenerationParams
from vidkit.sweep.problems import Problems
from vidkit.sweep.sweep_file import NOT_IN_A_SWEEP, read_sweep_file

LEAST = {"image_path": "example:photo", "prompt": "slow camera move"}

#: prompts that some language takes for something else
TEXTS = [
    'it\'s "quoted", 50 % `of` $HOME \\ back',
    "two\nlines and a\ttab",
    "--width",
    "-1",
    "no",
    "null",
    "1e3",
    "0010",
    "1:30",
    "2024-01-01",
    "# no comment",
    "key: value, {a: [b]}",
    "- item",
    "größer, 大きい, 🎬 and \u2028 \x85 \x7f",
    "word " * 200 + "end",
    "C:\\Images\\new\\photo.jpg",
]

REQUESTS = [
    LEAST,
    *({**LEAST, "prompt": text} for text in TEXTS),
    {**LEAST, "image_path": "-odd name's.png", "output_path": "out put/clip.webm"},
    {**LEAST, "overwrite": True, "bare": False},
    {**LEAST, "noise_aug_strength": 1e-05, "guidance_scale": 7, "min_guidance_scale": 1.5, "seed": -1},
    {**LEAST, "seed": 2147483647, "width": 96, "height": 64, "num_frames": 14, "fps": 12, "negative_prompt": ""},
    {**LEAST, "pipeline": "animatediff", "conditioning": "pia", "motion_scale": 2, "base_model": "bundled:tiny-svd"},
]


def from_python(text: str, folder: Path) -> GenerationParams:
    """Run it up to the call of generate, which stands last."""
    *before, last = ast.parse(text).body
    assert ast.unparse(last) == "result = vidkit.generate(params)"
    names: dict[str, Any] = {}
    exec(compile(ast.Module(before, []), "copied", "exec"), names)  # noqa: S102
    params = names["params"]
    assert isinstance(params, GenerationParams)
    return params


def from_papermill(text: str, folder: Path) -> GenerationParams:
    path = folder / "one.yaml"
    path.write_text(text, encoding="utf-8")
    return GenerationParams(**read_yaml_file(str(path)))


def from_sweep(text: str, folder: Path) -> GenerationParams:
    path, problems = folder / "sweep.yaml", Problems("the copied text")
    path.write_text("base:\n" + textwrap.indent(text, "  ") + "axes: {motion_bucket_id: [8, 9]}\n", encoding="utf-8")
    base = read_sweep_file(path, problems).base
    problems.raise_if_any()
    return GenerationParams(**base)


def from_json(text: str, folder: Path) -> GenerationParams:
    return GenerationParams(**parse_json(text, "the argument"))


def from_command(text: str, folder: Path) -> GenerationParams:
    program, *arguments = shlex.split(text)
    assert program == "vidkit"
    return GenerationParams(**merged_request(make_parser().parse_args(arguments), None))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(len(REQUESTS)))
@pytest.mark.parametrize(
    ("language", "read"),
    [
        ("python", from_python),
        ("yaml", from_papermill),
        ("yaml", from_sweep),
        ("json", from_json),
        ("cli", from_command),
    ],
)
def test_each_language_gives_the_same_request(language: Language, read: Any, number: int, tmp_path: Path) -> None:
    left_out = NOT_IN_A_SWEEP if read is from_sweep else ()
    params = GenerationParams(**{name: value for name, value in REQUESTS[number].items() if name not in left_out})

    again = read(copy_as(params, language), tmp_path)

    assert again == params
    assert again.model_fields_set - {"schema_version"} == params.model_fields_set


def test_as_a_person_would_write_it() -> None:
    params = GenerationParams(**LEAST, seed=7, overwrite=True)
    assert copy_as(params, "python") == (
        "import vidkit\n\nparams = vidkit.GenerationParams(\n    image_path='example:photo',\n"
        "    prompt='slow camera move',\n    seed=7,\n    overwrite=True,\n)\nresult = vidkit.generate(params)\n"
    )
    assert copy_as(params, "yaml") == (
        'image_path: "example:photo"\nprompt: "slow camera move"\nseed: 7\noverwrite: true\n'
    )
    assert copy_as(params, "cli") == (
        "vidkit generate --image-path example:photo --prompt 'slow camera move' --seed 7 --overwrite\n"
    )
    assert json.loads(copy_as(params, "json")) == params.to_wire()
    long = GenerationParams(**{**LEAST, "prompt": "word " * 200})
    assert [copy_as(long, language).count("\n") for language in ("yaml", "cli")] == [2, 1]


def test_every_language_can_be_chosen() -> None:
    assert set(LANGUAGES.values()) == set(get_args(Language))


def test_the_view_follows_the_request_and_the_language() -> None:
    first, second = GenerationParams(**LEAST), GenerationParams(**LEAST, seed=7)
    view = CopyView(first, lock=threading.RLock())
    assert view.text.value == view.button.text == copy_as(first, "python")
    view.language.value = "cli"
    assert view.text.value == view.button.text == copy_as(first, "cli")
    view.show(second)
    assert view.text.value == view.button.text == copy_as(second, "cli")
    assert view.text.description and view.language.description  # labels in the page
