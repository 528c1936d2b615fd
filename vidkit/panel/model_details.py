"""What a model's files say of it: class, licence, parameters and precision. Reads headers, no weights."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Final

from vidkit.errors import SetupError
from vidkit.models.locate import Model
from vidkit.models.safetensors_header import read_safetensors_header
from vidkit.panel.model_list import Found

#: safetensors' names of what models hold
DTYPES: Final = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def details(found: Found) -> dict[str, Any]:
    """What inspecting a model tells, in words: place, class, size, licence, parameters and precision, card."""
    told: dict[str, Any] = {"path": str(found.path), "origin": found.origin, "size": in_gigabytes(found.size)}
    if found.model is not None:
        told["class"] = found.model.kind
        told["licence"] = licence_of(found.path, found.model) or "unknown: see where it was fetched from"
        told |= {f"card: {key}": value for key, value in found.model.card.items() if key != "licence"}
    files = [found.path] if found.path.is_file() else sorted(found.path.rglob("*.safetensors"))
    for file in files:
        if file.suffix == ".safetensors":
            name = file.name if found.path.is_file() else file.relative_to(found.path).as_posix()
            told[name] = weights_in_words(file)
    if found.problem is not None:
        told["problem"] = found.problem
    return told


def licence_of(path: Path, model: Model) -> str | None:
    """As vidkit's card has it, or the front matter of the model's README, as on Hugging Face."""
    if "licence" in model.card:
        return str(model.card["licence"])
    readme = (path if path.is_dir() else path.parent) / "README.md"
    try:
        with readme.open(encoding="utf-8", errors="replace") as file:
            head = file.read(4096)
    except OSError:
        return None
    matter = head.split("---")[1] if head.startswith("---") and head.count("---") > 1 else ""
    entries = dict(line.split(":", 1) for line in matter.splitlines() if ":" in line and not line.startswith(" "))
    name = (entries.get("license_name") or entries.get("license") or "").strip().strip("'\"")
    return name or None


def weights_in_words(file: Path) -> str:
    try:
        header = read_safetensors_header(file)
    except SetupError as error:
        return error.message
    values: Counter[str] = Counter()
    for dtype, shape in header.values():
        values[DTYPES.get(dtype, dtype)] += math.prod(shape)
    total = sum(values.values())
    return f"{total / 1e6:,.1f} million parameters, {', '.join(values)}"


def in_gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
