"""Another program's answer, whatever becomes of that program."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """status: the exit status, negative for a signal; None: it did not end in time (`is_late`), or never started.

    output: of standard output, until then; errors: of standard error, or why it could not be started.
    """

    status: int | None
    output: str
    errors: str
    is_late: bool = False

    @property
    def is_fine(self) -> bool:
        return self.status == 0

    @property
    def last_words(self) -> str:
        """The last line that says something: what programs end with when they fail."""
        lines = [line.strip() for line in (self.errors or self.output).splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"


def ask(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program to its end, or for so many seconds. Raises nothing.

    One that hangs in the kernel, as programs do that talk to a hanging driver, cannot even be killed; it is left.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
    except OSError as error:
        return Answer(None, "", str(error))
    try:
        output, errors = process.communicate(timeout=seconds)
        return Answer(process.returncode, output, errors)
    except subprocess.TimeoutExpired as late:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        return Answer(None, text_of(late.stdout), text_of(late.stderr), is_late=True)


def text_of(output: str | bytes | None) -> str:
    """What a late program had said; Python gives it as bytes here."""
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
