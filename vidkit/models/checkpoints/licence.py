"""The licence of a model, as its page on Hugging Face has it."""

from __future__ import annotations

from pathlib import Path


def licence_beside(path: Path) -> str | None:
    """From the front matter of the README in a model's folder, or beside its file; None where it is not told."""
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
