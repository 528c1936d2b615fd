"""Every way vidkit can fail, as one exception tree; its codes are the table in `vidkit.error_codes`.

Each error names what was wrong, the value, and the remedy. The command line prints it as one JSON document
(`VidkitError.to_json`) and ends with the category's exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from vidkit.error_codes import CATEGORIES as CATEGORIES
from vidkit.error_codes import CODES as CODES
from vidkit.error_codes import Category as Category
from vidkit.error_codes import ErrorKind as ErrorKind

EXIT_CODES: Final[dict[Category, int]] = {"generation": 1, "input": 2, "system": 3, "critical": 4}
EXIT_CANCELLED: Final = 130

#: of a cell's output that holds an error's JSON: what runs a notebook reads from it why it failed
ERROR_MIMETYPE: Final = "application/vnd.vidkit.error+json"


def first_line(error: BaseException) -> str:
    """What another library's error says first, of at most 300 characters; its type's name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]


class Remedy(str):
    """A suggestion that a program can apply: the parameters to change, snake_case; None takes one back.

    `Remedy("Set width to 256", width=256)` reads as its text everywhere else.
    """

    changes: dict[str, Any]

    def __new__(cls, text: str, **changes: Any) -> Remedy:
        remedy = super().__new__(cls, text)
        remedy.changes = changes
        return remedy


class VidkitError(Exception):
    """Base of all vidkit errors.

    Args:
        code: a code of the error's category in `CODES`; stable, for programs.
        message: one or two sentences: what was wrong, with the value, and what to do.
        suggestions: concrete next steps, best first; a `Remedy` can be applied by a program.
        concerns: the parameters (snake_case) that it is about.
    """

    category: ClassVar[Category]
    #: the single problems, where several were put into one error
    problems: tuple[VidkitError, ...]

    def __init__(self, code: str, message: str, suggestions: Sequence[str] = (), concerns: Sequence[str] = ()) -> None:
        if code not in CODES[self.category]:
            raise ValueError(f"{code!r} is no code of the category {self.category}; see vidkit.error_codes")
        super().__init__(message)
        self.code = code
        self.message = message
        self.suggestions = list(suggestions)
        self.concerns = tuple(concerns)
        self.problems = (self,)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.category]

    def _render_traceback_(self) -> list[str]:
        """IPython shows an error by this: as any other, the remedies under it, and the error as data beside it."""
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import display

        display({ERROR_MIMETYPE: self.to_json()}, raw=True)  # type: ignore[no-untyped-call]
        lines = InteractiveShell.instance().InteractiveTB.structured_traceback(type(self), self, self.__traceback__)
        return [*lines, *(f"  - {suggestion}" for suggestion in self.suggestions)]

    def __reduce__(self) -> tuple[Any, ...]:
        problems = {} if self.problems == (self,) else {"problems": self.problems}
        return type(self), (self.code, self.message, self.suggestions, self.concerns), problems

    def to_json(self) -> dict[str, Any]:
        """The error response of the JSON protocol."""
        return {
            "status": "error",
            "error": CODES[self.category][self.code].title,
            "message": self.message,
            "suggestions": self.suggestions,
            "code": self.code,
            "category": self.category,
        }


class InputError(VidkitError):
    """What the user gave cannot be used: shown at the control it concerns. Exit code 2."""

    category = "input"


class SetupError(VidkitError):
    """Something is missing on this machine: leads to the set-up. Exit code 3."""

    category = "system"


class GenerationError(VidkitError):
    """The generation failed; another try with other settings may succeed. Exit code 1."""

    category = "generation"


class Cancelled(GenerationError):  # noqa: N818  (not an error to whoever asked for it)
    """The user stopped the generation (cancel token, SIGINT, SIGTERM). Exit code 130."""

    def __init__(
        self,
        code: str = "cancelled",
        message: str = "The generation was cancelled; nothing was written.",
        suggestions: Sequence[str] = (),
        concerns: Sequence[str] = (),
    ) -> None:
        super().__init__(code, message, suggestions, concerns)

    @property
    def exit_code(self) -> int:
        return EXIT_CANCELLED


class CriticalError(VidkitError):
    """The machine or the process failed: disk full, killed, driver crash, or a defect of ours. Exit code 4."""

    category = "critical"


def internal_error(error: Exception) -> CriticalError:
    """What no code expected, for the outermost boundary of a process."""
    return CriticalError(
        "internal_error",
        f"{type(error).__name__}: {error}",
        ["This is a defect of vidkit or of a library: report it with the traceback on stderr"],
    )
