"""What is acknowledged once before a model for adult pictures is used, or the safety checker is turned off.

Settings keep when it was acknowledged, and which version of the text: `safety` in config.json. A new text has to be
acknowledged anew.
"""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import fill
from typing import Any, Final

from vidkit.config_file import change_config, config_path, invalid_config
from vidkit.errors import SetupError
from vidkit.files import typed_write_errors
from vidkit.settings import Settings, load_settings

#: raised when the text says something else than before
VERSION: Final = 1

INTRODUCTION: Final = (
    "Models that are marked as made for adult pictures, and clips without the safety checker, need this "
    "acknowledgement, once."
)
POINTS: Final = {
    "Age": "I am of full age where I live, and old enough by its law to make and to see such pictures.",
    "Responsibility": "I alone am responsible for what I make with vidkit, and for what is done with it by my doing.",
    "Consent": "I show nobody who can be recognized without that person's consent, least of all naked, in a sexual act "
    "or in a false light. I show nobody in such pictures who is, or looks, under age.",
    "Law": "I know the law where I live, and keep to it: what may be made, owned, shown and passed on differs from "
    "place to place.",
}
CLOSE: Final = "Clips still declare that they are AI-generated."


def in_lines() -> str:
    """All of it, for a terminal."""
    points = [f"{number}. {title}. {text}" for number, (title, text) in enumerate(POINTS.items(), 1)]
    wrapped = [fill(point, 100, subsequent_indent="   ") for point in points]
    return "\n".join([fill(INTRODUCTION, 100), "", *wrapped, "", CLOSE])


#: the short of it, in messages
ABOUT: Final = "of your age, of responsibility for what is made, of consent of those shown, and of local law"

COMMAND: Final = "vidkit acknowledge"
TEXT: Final = in_lines()


def is_acknowledged(settings: Settings) -> bool:
    safety = settings.safety
    return bool(safety.acknowledged) and safety.acknowledged_version == VERSION


def require(settings: Settings, what: str, *others: str) -> None:
    """Refuse what needs the acknowledgement as long as it was not given.

    Args:
        what: needs it, as the beginning of a sentence; others: remedies besides giving it.

    Raises:
        SetupError: `acknowledgement_needed`.
    """
    if is_acknowledged(settings):
        return
    given = settings.safety.acknowledged
    again = f" What you acknowledged on {given[:10]} has a new text." if given else ""
    raise SetupError(
        "acknowledgement_needed",
        f"{what} needs an acknowledgement, given once: {ABOUT}.{again}",
        [
            f"Read it and give it: {COMMAND}",
            "In Python: vidkit.acknowledge(); in the control panel: the box above Run",
            *others,
        ],
    )


def acknowledge(*, accept: bool = False) -> str:
    """Acknowledge `TEXT`: from now on models for adult pictures may be used, and the safety checker turned off.

    Args:
        accept: True says that you have read the text and accept it. Without it the text is shown, in the error.

    Returns:
        When it was acknowledged, as the settings keep it (ISO 8601, UTC).

    Raises:
        SetupError: `acknowledgement_needed`: not accepted; `invalid_config`, for a broken settings file, which is left
            as it is; `output_not_writable`. CriticalError: `disk_full`.
    """
    if accept is not True:
        raise SetupError("acknowledgement_needed", TEXT, ["If you accept it: vidkit.acknowledge(accept=True)"])
    load_settings()  # a file that is broken elsewhere is not added to
    now = datetime.now(UTC).isoformat(timespec="seconds")
    keep(acknowledged=now, acknowledgedVersion=VERSION)
    return now


def withdraw() -> None:
    """Take it back. Raises as `acknowledge`."""
    keep(acknowledged=None, acknowledgedVersion=None)


def keep(**values: Any) -> None:
    """Set keys of `safety` in config.json; those that are None are taken out."""

    def change(content: dict[str, Any]) -> None:
        before = content.get("safety", {})
        if not isinstance(before, dict):
            raise invalid_config(config_path(), f"safety is {before!r}, not a JSON object")
        after = {key: value for key, value in {**before, **values}.items() if value is not None}
        content["safety"] = after
        if not after:
            del content["safety"]

    with typed_write_errors(config_path()):
        change_config(change)
