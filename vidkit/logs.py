"""The package's log, `logging.getLogger("vidkit")`: on stderr, and in `VIDKIT_HOME/logs/generation.log`.

As a library vidkit attaches nothing: `log_to` does, which vidkit's own programs call as they start. Nothing is sent
anywhere. Prompts and the folders of paths stay out, unless the setting `log.private` has them in.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args

from vidkit.errors import Cancelled, InputError, VidkitError
from vidkit.log_file import SharedLogFile
from vidkit.log_privacy import without_places, without_private
from vidkit.paths import path_to_write
from vidkit.settings import Level, Settings, settings_or_defaults

logger = logging.getLogger("vidkit")

#: the specification's
FILE_FORMAT: Final = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
CONSOLE_FORMAT: Final = "%(levelname)s: %(message)s"
FILE_NAME: Final = "generation.log"

#: what would forge a line, or write to the terminal of who reads it
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

#: marks a record whose matter is in the answer to the request too: a console that tells only of problems leaves it out
ANSWERED: Final = {"answered": True}

_attached: list[logging.Handler] = []
_tag = ""


def log_to(console: str | None = None, file: bool | str | Path = True) -> Path | None:
    """Log what vidkit does in this program; called again, it replaces what it did before.

    Args:
        console: the least level that is said on stderr: DEBUG, INFO, WARNING, ERROR or OFF; by default the setting
            `log.console`.
        file: True for `generation.log` in the data folder's logs/, a path, or False for none. The settings of `log` say
            from which level on, in which format, and when it is rotated. It is made with the first line. Where it
            cannot be written, that is said once, and nothing else fails.

    Returns:
        The file's path.

    Raises:
        InputError: `invalid_value`, for another level.
    """
    settings = settings_or_defaults()
    handlers: list[logging.Handler] = [Console(level_number(console or settings.log.console))]
    path = settings.logs / FILE_NAME if file is True else path_to_write(file) if file else None
    if path is not None and settings.log.level != "OFF":
        handlers.append(file_handler(path, settings))
    for handler in _attached:
        logger.removeHandler(handler)
        handler.close()
    _attached[:] = handlers
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(min(handler.level for handler in handlers))
    return path


def log_unless_chosen(console: str | None = None) -> None:
    """As `log_to`, where the program has not called it: what it chose holds."""
    if not _attached:
        log_to(console)


def tag_lines(tag: str) -> None:
    """What stands, behind the process's number, before the file's next lines: which request they are of."""
    global _tag
    _tag = tag


def log_failure(
    what: str,
    error: BaseException,
    seconds: float | None = None,
    data: Mapping[str, Any] | None = None,
    *,
    with_message: bool = True,
) -> None:
    """One line for what failed, or was stopped: with its code; a defect with its traceback.

    seconds: after which; data: for JSON lines; with_message: whether the error's text may be told.
    """
    known = isinstance(error, VidkitError)
    code = error.code if isinstance(error, VidkitError) else type(error).__name__
    after = "" if seconds is None else f" after {seconds:.3f} s"
    told = f": {error}" if known and with_message else ""
    category = {"category": error.category} if isinstance(error, VidkitError) else {}
    timed = {} if seconds is None else {"seconds": round(seconds, 3)}
    marks = {**ANSWERED, "data": {"event": "failed", **timed, "code": code, **category, **(data or {})}}
    if isinstance(error, Cancelled | KeyboardInterrupt | SystemExit):
        logger.info("%s was stopped%s: %s", what, after, code, extra=marks)
    else:
        text = "%s failed%s: %s%s"
        logger.error(text, what, after, code, told, extra=marks, exc_info=None if known else error)


def file_handler(path: Path, settings: Settings) -> logging.Handler:
    log = settings.log
    handler = SharedLogFile(path, max_bytes=round(log.megabytes * 1e6), files=log.files)
    handler.setLevel(level_number(log.level))
    handler.setFormatter((JsonLines if log.format == "json" else TextLines)(private=log.private))
    return handler


def level_number(level: str) -> int:
    names = get_args(get_args(Level)[0])
    if level.upper() not in names:
        raise InputError("invalid_value", f"The level of the log is {level!r}.", [f"Use one of {', '.join(names)}"])
    return logging.CRITICAL + 1 if level.upper() == "OFF" else int(getattr(logging, level.upper()))


class Console(logging.Handler):
    """Lines on whatever is stderr now."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(OneLine(CONSOLE_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None or (getattr(record, "answered", False) and self.level > logging.INFO):
            return
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return  # nobody listens any more, so there is nobody to tell
        except Exception:  # noqa: BLE001  (logging breaks nothing)
            self.handleError(record)


class OneLine(logging.Formatter):
    """The message in one line, whatever it names; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """logging keeps a traceback's text for the other formatters, which leave out other things of it."""
        record.exc_text = None
        text = super().format(record)
        record.exc_text = None
        return text

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name in logging)
        record.message = CONTROL.sub(lambda found: repr(found[0])[1:-1], record.message)
        return super().formatMessage(record)


class TextLines(OneLine):
    """For a person. Each message names its process, and the request by its number there: `[4711.2]`."""

    def __init__(self, *, private: bool) -> None:
        super().__init__(FILE_FORMAT)
        self._private = private

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name in logging)
        record.message = f"[{record.process}{_tag and '.'}{_tag}] {kept(record.message, self._private)}"
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (the name in logging)
        text = super().formatException(ei)
        return text if self._private else kept(without_places(text), self._private)


class JsonLines(TextLines):
    """For a program: one JSON object a line, with what the record carries as `data` under keys that it has not itself.

    Who makes the data leaves out what is private, as `request_log` does.
    """

    def format(self, record: logging.LogRecord) -> str:
        own = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            **({"request": int(_tag)} if _tag else {}),
            "message": kept(record.getMessage(), self._private),
            **({"traceback": self.formatException(record.exc_info)} if record.exc_info else {}),
        }
        return json.dumps({**own, **getattr(record, "data", {}), **own}, ensure_ascii=False, default=str)


def kept(text: str, private: bool) -> str:
    return text if private else without_private(text)
