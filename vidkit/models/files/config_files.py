"""The JSON files of a model's folder: configs, indices, vidkit's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vidkit.errors import SetupError
from vidkit.models.files.file_format import examine
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.models.files.folder_safety import MAX_CONFIG_BYTES

#: a model has some ten of them, and each request asks for several
_texts: Final[RememberedByFile[str]] = RememberedByFile(most=512)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, the caller's own. The file is read once while it stays what it is.

    Raises:
        SetupError: `invalid_model`, when it cannot be read or is something else.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise invalid_config(path, f"it has more than the {MAX_CONFIG_BYTES} bytes allowed of a config")
        content = json.loads(_texts.get(path, lambda file: file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_config(path, str(error)) from error
    if not isinstance(content, dict):
        raise invalid_config(path, "not a JSON object")
    return content


def invalid_config(path: Path, reason: str) -> SetupError:
    return SetupError("invalid_model", f"The model's file {path} cannot be read: {reason}.", [examine(path.parent)])
