"""The one text that names LoRAs: what it means, how it is written, what is refused."""

from __future__ import annotations

import pytest

from vidkit.errors import InputError
from vidkit.lora_list import LoraEntry, loras_text, parse_loras, with_names
from vidkit.params import GenerationParams


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("pan", [("pan", 1.0)]),
        ("pan:0.5", [("pan", 0.5)]),
        (" pan : 0.5 ,zoom:-1,  tilt ", [("pan", 0.5), ("zoom", -1.0), ("tilt", 1.0)]),
        (r"C:\loras\pan.safetensors:0.8, D:\b", [(r"C:\loras\pan.safetensors", 0.8), (r"D:\b", 1.0)]),
        (r"C:\loras\pan.safetensors", [(r"C:\loras\pan.safetensors", 1.0)]),
        ("bundled:pan, bundled:zoom:2", [("bundled:pan", 1.0), ("bundled:zoom", 2.0)]),
        ('"a, b.safetensors":0.5, "say ""hi""":1e-1', [("a, b.safetensors", 0.5), ('say "hi"', 0.1)]),
        ("pan:4, zoom:-4", [("pan", 4.0), ("zoom", -4.0)]),
        ("pan,", [("pan", 1.0)]),
        ("pan,\n zoom:0", [("pan", 1.0), ("zoom", 0.0)]),
        ("", []),
        (" , ", []),
    ],
)
def test_what_a_list_means(text: str, entries: list[tuple[str, float]]) -> None:
    assert [(entry.name, entry.weight) for entry in parse_loras(text)] == entries
    assert parse_loras(loras_text(parse_loras(text))) == parse_loras(text)


def test_weights_are_written_as_short_as_they_can_be_read_back() -> None:
    entries = [LoraEntry("a", 0.8), LoraEntry("b", 1.0), LoraEntry("c", 0.123456789), LoraEntry("d, e:2", 1 / 3)]
    assert loras_text(entries) == 'a:0.8, b:1, c:0.123456789, "d, e:2":0.3333333333333333'
    assert list(parse_loras(loras_text(entries))) == entries


@pytest.mark.parametrize(
    ("text", "code", "mended"),
    [
        ("pan:4.1, zoom:1", "out_of_range", "pan:4, zoom:1"),
        ("pan:-9", "out_of_range", "pan:-4"),
        ("pan:nan", "out_of_range", "pan:1"),
        ("pan:inf", "out_of_range", "pan:4"),
        ("pan:1, zoom, pan:0.5", "invalid_value", "zoom:1, pan:0.5"),
    ],
)
def test_a_wrong_list_is_refused_with_a_right_one(text: str, code: str, mended: str) -> None:
    with pytest.raises(InputError) as refused:
        GenerationParams(image_path="p.png", prompt="x", loras=text)
    assert (refused.value.code, refused.value.concerns) == (code, ("loras",))
    remedy = refused.value.suggestions[0]
    assert sorted(mended.split(", ")) == sorted(remedy.changes["loras"].split(", "))  # type: ignore[attr-defined]
    GenerationParams(image_path="p.png", prompt="x", **remedy.changes)  # type: ignore[attr-defined]


def test_a_weight_needs_a_name() -> None:
    with pytest.raises(InputError, match=r"a weight, 0\.5, without a name"):
        parse_loras("pan, :0.5")


def test_a_wrong_list_is_told_beside_what_else_is_wrong() -> None:
    with pytest.raises(InputError) as refused:
        GenerationParams(image_path="p.png", prompt="", loras="pan:99", width=3)
    assert [problem.concerns for problem in refused.value.problems] == [("prompt",), ("loras",), ("width",)]


def test_names_are_changed_and_weights_kept() -> None:
    assert with_names('pan, "a, b":0.5', str.upper) == 'PAN:1, "A, B":0.5'
