"""The specification's desktop client, in Python: its JSON, its command line, how it listens and how it cancels.

What it hands to Windows is one string; Windows' C runtime splits that into the arguments that Python sees. Both are
done here by their published rules, so an argument reaches generate.py as it does there, broken ones too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from command_line import lives, wait_for

GENERATE_SCRIPT = Path(__file__).parent.parent / "generate.py"

#: `GenerationParams.cs`: the properties in their order, with the values that the class gives them
PROPERTIES: dict[str, Any] = {
    "pipeline": None,
    "baseModel": None,
    "motionAdapter": None,
    "imagePath": None,
    "prompt": None,
    "negativePrompt": None,
    "numFrames": 25,
    "fps": 8,
    "guidanceScale": 7.5,
    "motionBucketId": 127,
    "numInferenceSteps": 25,
    "decodeChunkSize": 4,
    "seed": -1,
    "outputPath": None,
}

#: of ASCII, what System.Text.Json's default encoder (JavaScriptEncoder.Default) escapes besides control characters:
#: what HTML could take for its own. Of other letters it escapes all.
ESCAPED = "\"&'+<>`\x7f"
SHORT_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\\": "\\\\"}


def to_json(params: Mapping[str, Any]) -> str:
    """`GenerationParams.ToJson()`: no spaces, nulls written."""
    unknown = set(params) - set(PROPERTIES)
    if unknown:
        raise ValueError(f"the client's class has no {unknown}")
    values = {**PROPERTIES, **params}
    return "{" + ",".join(f'"{name}":{json_value(values[name])}' for name in PROPERTIES) + "}"


def json_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return '"' + "".join(map(escaped, value)) + '"'
    return json_float(value) if isinstance(value, float) else str(value)


def escaped(letter: str) -> str:
    """One letter of a text; beyond the basic plane as the two halves that UTF-16 has for it."""
    if letter in SHORT_ESCAPES:
        return SHORT_ESCAPES[letter]
    if " " <= letter <= "~" and letter not in ESCAPED:
        return letter
    if "\ud800" <= letter <= "\udfff":
        return "\\uFFFD"  # half a letter: the encoder replaces it
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex().upper()}" for at in range(0, len(units), 2))


def json_float(value: float) -> str:
    """A C# `float` (32 bits) in the fewest digits that give it back; 1E+07 and 1E-05 and beyond with an exponent."""
    single = np.float32(value)
    if single == 0 or 1e-4 <= abs(single) < 1e7:
        return np.format_float_positional(single, unique=True, trim="-")
    mantissa, exponent = np.format_float_scientific(single, unique=True, trim="-").split("e")
    return f"{mantissa}E{exponent[0]}{exponent[1:].zfill(2)}"


def command_line(script: str, request: str) -> str:
    """`ProcessStartInfo.Arguments`: the script's path as it is, the JSON with a backslash before each quote."""
    return f'{script} "{request.replace(chr(34), chr(92) + chr(34))}" '


def split_by_windows(line: str) -> list[str]:
    r"""The arguments that a C program finds in its command line (behind the program's own name).

    Microsoft, "Parsing C command-line arguments": spaces and tabs separate; 2n backslashes before a quote are n
    backslashes, and the quote begins or ends a quoted part; 2n+1 are n backslashes and a quote that is text; other
    backslashes are themselves; two quotes within a quoted part are one that is text.
    """
    arguments: list[str] = []
    at = 0
    while (at := skipped_spaces(line, at)) < len(line):
        argument, quoted = "", False
        while at < len(line) and (quoted or line[at] not in " \t"):
            start = at
            while line[at : at + 1] == "\\":
                at += 1
            backslashes = at - start
            if line[at : at + 1] != '"':
                argument += "\\" * backslashes
                if not backslashes:
                    argument += line[at]
                    at += 1
                continue
            argument += "\\" * (backslashes // 2)
            at += 1
            if backslashes % 2:
                argument += '"'
            elif quoted and line[at : at + 1] == '"':
                argument += '"'
                at += 1
            else:
                quoted = not quoted
        arguments.append(argument)
    return arguments


def skipped_spaces(line: str, at: int) -> int:
    while at < len(line) and line[at] in " \t":
        at += 1
    return at


def arrived(params: Mapping[str, Any]) -> list[str]:
    """What of a request arrives behind the script's name: one argument, if all is well."""
    return split_by_windows(command_line("generate.py", to_json(params)))[1:]


@dataclass
class Outcome:
    """What the client knows in the end. stdout: to its end; progress and log: of stderr, in their order."""

    code: int
    stdout: str
    progress: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        """stdout as the client deserialises it: one document, nothing beside it."""
        content = json.loads(self.stdout)
        assert isinstance(content, dict)
        return content


class DesktopClient:
    """One request: `PythonBackend.GenerateVideoAsync`. Standard input is what the client's own is."""

    def __init__(
        self, params: Mapping[str, Any], *, reads_stderr: bool = True, through: Sequence[str] = (), **more: Any
    ) -> None:
        """
        Args:
            reads_stderr: False leaves it to the test.
            through: a command that runs the rest of the command line.
            more: of `subprocess.Popen`.
        """
        self.process = subprocess.Popen(
            [*through, sys.executable, str(GENERATE_SCRIPT), *arrived(params)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **{"cwd": GENERATE_SCRIPT.parent, **more},
        )
        self.progress: list[dict[str, Any]] = []
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        if reads_stderr:
            self._reader.start()

    def _read_stderr(self) -> None:
        """`ErrorDataReceived`: JSON that fits `ProgressUpdate` is progress, all else is log text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            text = line.decode().rstrip("\r\n")
            try:
                update = json.loads(text)
                assert isinstance(update["progress"], int) and isinstance(update["message"], str)
                self.progress.append(update)
            except (ValueError, TypeError, KeyError, AssertionError):
                if text:
                    self.log.append(text)

    def finish(self, timeout: float = 240) -> Outcome:
        """`ReadToEndAsync`, then `WaitForExitAsync`."""
        assert self.process.stdout is not None
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        try:
            output = self.process.stdout.read()
            code = self.process.wait()
        finally:
            timer.cancel()
        if self._reader.ident is not None:
            self._reader.join(10)
        return Outcome(code, output.decode(), self.progress, self.log)

    def kill(self) -> None:
        """`Process.Kill()`: this process alone, which can do nothing about it any more."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> DesktopClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._reader.ident is not None:
            self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def has_ended(pids: list[int], seconds: float) -> None:
    """Wait until none of these processes is there."""
    wait_for(lambda: not any(map(lives, pids)), seconds)
