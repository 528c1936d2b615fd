"""The error tree, and that the documentation tells of it what holds."""

from __future__ import annotations

import ast
import json
import pickle
import re
from pathlib import Path

import pytest

from vidkit.errors import (
    CODES,
    EXIT_CODES,
    Cancelled,
    Category,
    CriticalError,
    GenerationError,
    InputError,
    SetupError,
    first_line,
)

PACKAGE = Path(__file__).parent.parent / "vidkit"
REQUEST_PAGE = (Path(__file__).parent.parent / "docs" / "request.md").read_text(encoding="utf-8")


def test_an_error_is_one_json_document_with_the_keys_of_the_protocol() -> None:
    error = GenerationError("out_of_memory", "It did not fit.", ["Set decode_chunk_size to 2"])
    assert json.loads(json.dumps(error.to_json())) == {
        "status": "error",
        "error": "CUDA out of memory",
        "message": "It did not fit.",
        "suggestions": ["Set decode_chunk_size to 2"],
        "code": "out_of_memory",
        "category": "generation",
    }


def test_exit_codes_follow_the_category() -> None:
    assert InputError("empty_prompt", "").exit_code == 2
    assert SetupError("model_not_found", "").exit_code == 3
    assert GenerationError("corrupted_output", "").exit_code == 1
    assert CriticalError("disk_full", "").exit_code == 4
    assert Cancelled().exit_code == 130


def test_a_code_belongs_to_one_category() -> None:
    codes = [code for group in CODES.values() for code in group]
    assert len(codes) == len(set(codes))
    with pytest.raises(ValueError, match="no code of the category input"):
        InputError("disk_full", "")


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(InputError("invalid_size", "130x70", ["Use 128x64"])))  # noqa: S301
    assert (error.code, error.message, error.suggestions) == ("invalid_size", "130x70", ["Use 128x64"])


@pytest.mark.parametrize("category", CODES)
def test_the_pages_tell_every_categorys_exit_code(category: Category) -> None:
    """All codes are on the page of troubles (test_troubleshooting.py)."""
    row = next(line for line in REQUEST_PAGE.splitlines() if line.strip().startswith(f"| `{category}` | "))
    assert set(re.findall(r"`(\w+)`", row)) <= {category, *CODES[category]}
    assert f"| {EXIT_CODES[category]}" in row


def test_every_error_says_what_to_do() -> None:
    """No error is raised without a suggestion."""
    kinds = {kind.__name__ for kind in (InputError, SetupError, GenerationError, CriticalError)}
    bare = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds:
                named = [keyword.value for keyword in call.keywords if keyword.arg == "suggestions"]
                given = [*call.args[2:3], *named]
                if not given or (isinstance(given[0], ast.List | ast.Tuple) and not given[0].elts):
                    bare.append(f"{file.name}:{call.lineno}")
    assert bare == []


def test_of_another_librarys_error_the_first_line_is_told() -> None:
    assert first_line(RuntimeError("no room\nand more")) == "no room"
    assert first_line(RuntimeError()) == "RuntimeError"
    assert first_line(RuntimeError("x" * 1000)) == "x" * 300
