"""The short forms of axes, right and wrong, and the YAML that they are written in."""

from __future__ import annotations

from typing import Any

import pytest

from vidkit.errors import InputError
from vidkit.sweep.axes import MAX_POINTS, expand
from vidkit.sweep.yaml_text import read_yaml

#: (parameter, what is written, its values)
FORMS: list[tuple[str, Any, list[Any]]] = [
    ("fps", 8, [8]),
    ("fps", [8, 12], [8, 12]),
    ("fps", "8, 12", [8, 12]),
    ("fps", "1..5", [1, 2, 3, 4, 5]),
    ("fps", "1...5", [1, 2, 3, 4, 5]),
    ("fps", " 1 .. 5 ", [1, 2, 3, 4, 5]),
    ("fps", "5..1", [5, 4, 3, 2, 1]),
    ("fps", "3..3", [3]),
    ("fps", "1-5", [1, 2, 3, 4, 5]),
    ("fps", "1-5 (+2)", [1, 3, 5]),
    ("fps", "1..10 (+2)", [1, 3, 5, 7, 9]),
    ("fps", "1..10(3)", [1, 4, 7, 10]),
    ("fps", "10-5 (-3)", [10, 7]),
    ("fps", "1-10 [5]", [1, 3, 5, 7, 10]),
    ("fps", "1, 2, .., 6", [1, 2, 3, 4, 5, 6]),
    ("fps", "1, 2, ..., 4", [1, 2, 3, 4]),
    ("fps", "2, .., 5", [2, 3, 4, 5]),
    ("fps", "9, 6, .., 0", [9, 6, 3, 0]),
    ("fps", [1, 3, "..", 7, 20], [1, 3, 5, 7, 20]),
    ("fps", "1, 1..3, 10-20 (+5)", [1, 1, 2, 3, 10, 15, 20]),
    ("fps", ["1..3", 7], [1, 2, 3, 7]),
    ("fps", "1e1", [10]),
    ("seed", "-5--3", [-5, -4, -3]),
    ("seed", -1, [-1]),
    ("seed", "random", [-1]),
    ("seed", "random [3]", [-1, -1, -1]),
    ("seed", ["random [2]", 7], [-1, -1, 7]),
    ("seed", "-1, -1, 7", [-1, -1, 7]),
    ("strength", "0..1 [5]", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ("strength", "0..1 (+0.1)", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
    ("strength", "0.1, 0.2, .., 0.7", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
    ("strength", "0..1 [4]", [0.0, 1 / 3, 2 / 3, 1.0]),
    ("strength", "0.5, .75, 1", [0.5, 0.75, 1.0]),
    ("strength", "1e-2..3e-2 (+1e-2)", [0.01, 0.02, 0.03]),
    ("strength", [1e-05], [1e-05]),
    ("prompt", "a cat, asleep", ["a cat, asleep"]),
    ("prompt", "a cat, asleep || a dog", ["a cat, asleep", "a dog"]),
    ("prompt", ["a || b", "1..3"], ["a || b", "1..3"]),
    ("prompt_sr", "zoom in, zoom out", ["zoom in", "zoom out"]),
    ("prompt_sr", '"red, small", blue', ["red, small", "blue"]),
    ("prompt_sr_light", ["dawn", "dusk, late"], ["dawn", "dusk, late"]),
    ("image_path", 'a.jpg, "b, c.jpg"', ["a.jpg", "b, c.jpg"]),
    ("fit", "crop, pad", ["crop", "pad"]),
    ("bare", "true, false", [True, False]),
    ("bare", [True, False], [True, False]),
    ("width", [None, 128], [None, 128]),
    ("fps", [], []),
    ("fps", "", []),
]

#: (parameter, what is written, what the message must name)
WRONG: list[tuple[str, Any, str]] = [
    ("fps", "eight", "'eight' is neither a number nor a range"),
    ("fps", "1..x", "'1..x'"),
    ("fps", "1..", "'1..'"),
    ("fps", "random [3]", "'random [3]'"),
    ("fps", "1..10 (-1)", "leads nowhere"),
    ("fps", "10..1 (+1)", "leads nowhere"),
    ("fps", "1..10 (0)", "leads nowhere"),
    ("fps", "1..3 [1]", "two already"),
    ("fps", "1..3 [5]", "only 3 different values"),
    ("strength", "1..1 [3]", "only 1 different values"),
    ("fps", "1, 3, .., 10", "misses its end: in steps of 2 it stops at 9"),
    ("fps", "1, 3, .., 4", "it stops at 3"),
    ("fps", "1, 2, .., 0", "leads nowhere"),
    ("fps", "1, 1, .., 5", "leads nowhere"),
    ("fps", ".., 5", "stands between numbers"),
    ("fps", "1, .., .., 5", "stands between numbers"),
    ("fps", "1, 2, ..", "no number after it"),
    ("fps", "1, 2, .., 4..6", "between single numbers"),
    ("fps", [True, "..", 5], "between single numbers"),
    ("fps", [[1, 2], [3, 4]], "not lists in lists"),
    ("fps", {"from": 1}, "mappings"),
    ("seed", "0..999999999", "1,000,000,000 values"),
    ("seed", "random [100001]", "100,001 values"),
    ("strength", "0..1 [999999999]", "999,999,999 values"),
    ("seed", "1, 2, .., 99999999999999999999", "values"),
    ("fps", "1e999999999", "neither a number"),
    ("fps", "9" * 5000, "neither a number"),
]


@pytest.mark.parametrize(("name", "written", "values"), FORMS, ids=lambda part: str(part)[:40])
def test_short_forms(name: str, written: Any, values: list[Any]) -> None:
    found = expand(name, written)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(("name", "written", "part"), WRONG, ids=lambda part: str(part)[:40])
def test_wrong_short_forms_say_what_is_wrong(name: str, written: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        expand(name, written)
    assert part in caught.value.message
    assert caught.value.code == "invalid_value"


def test_an_axis_may_be_as_long_as_a_sweep() -> None:
    assert len(expand("seed", f"1..{MAX_POINTS}")) == MAX_POINTS


#: what is written after a colon, and what YAML 1.2's users mean by it (PyYAML's own reading in the comment)
PLAIN = [
    ("1..10", "1..10"),
    ("1-10", "1-10"),
    ("0..1 [5]", "0..1 [5]"),
    ("random [5]", "random [5]"),
    ("1, 2, .., 10", "1, 2, .., 10"),
    ("[1, 2, .., 10]", [1, 2, "..", 10]),
    ("-1", -1),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1e3", 1000.0),  # "1e3"
    ("no", "no"),  # False
    ("on", "on"),  # True
    ("true", True),
    ("1:30", "1:30"),  # 90
    ("2001-01-10", "2001-01-10"),  # a date
    ("1_000", "1_000"),  # 1000
    ("~", None),
    ("", None),
    ("'8'", "8"),
]


@pytest.mark.parametrize(("written", "value"), PLAIN)
def test_plain_values(written: str, value: Any) -> None:
    content, complaints = read_yaml(f"key: {written}\n")
    assert (content["key"], type(content["key"]), complaints) == (value, type(value), [])


def test_doubled_keys_and_octal_like_numbers_are_all_named_with_their_lines() -> None:
    content, complaints = read_yaml("a: 1\nb:\n  c: 010\n  d: 2\n  c: 3\na: 4\n")
    assert content["b"]["d"] == 2
    assert [complaint.split(":")[0] for complaint in complaints] == ["line 3", "line 5", "line 6"]
    assert "010" in complaints[0]
    assert "after line 3" in complaints[1]


def test_anchors_and_merges_are_no_doubled_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, y: 4}\nd: *a\n"
    content, complaints = read_yaml(text)
    assert complaints == []
    assert (content["c"], content["d"]) == ({"x": 1, "y": 4}, {"x": 1, "y": 2})


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: b: c", "a: *none", "a: \x00", "- " * 3000, "a: " + "9" * 5000, "--- 1\n--- 2", "!!python/name:os x"],
    ids=range(8),
)
def test_what_is_no_yaml_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="not YAML"):
        read_yaml(text)
