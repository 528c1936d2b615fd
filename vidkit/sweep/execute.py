"""One point of a sweep: its notebook executed, and what it made brought into its run folder."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from vidkit.errors import CriticalError, InputError, SetupError, VidkitError
from vidkit.files import NO_SPACE, write_error
from vidkit.params import GenerationParams
from vidkit.record import key_of
from vidkit.runs import RunFolder, claim, describe_error, write_failure, write_manifest
from vidkit.runs.finished import ended, finished_content
from vidkit.sweep.notebook import WARM, Shown, execute, read_error, read_shown
from vidkit.video import poster, read_frames

#: errors that every further point would meet too
HOPELESS: Final[dict[str, type[VidkitError]]] = {"disk_full": CriticalError, "output_not_writable": SetupError}

State = Literal["done", "failed", "elsewhere"]


@dataclass(frozen=True)
class Task:
    """A point with everything needed to run it, in whatever process.

    key: its content key, which names its folder in `root`; engine: papermill's, None for papermill's own; failures:
    earlier ones, after which it is to be tried again.
    """

    root: Path
    key: str
    index: int
    axes: Mapping[str, Any]
    params: GenerationParams
    notebook: Path
    engine: str | None = WARM
    failures: int = 0

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root, self.key)

    def is_settled(self) -> bool:
        """Whether it is done, or has failed once more since it was planned."""
        return self.folder.is_done() or self.folder.attempts() > self.failures


@dataclass(frozen=True)
class Outcome:
    """How a point ended. elsewhere: another runner has it, or has done it by now. error: as in failure.json."""

    state: State
    error: Mapping[str, Any] | None = None


OnBegan = Callable[[Task], None]
Outcomes = Generator[tuple[Task, Outcome], None, None]


def run_task(task: Task, *, wait: bool = False) -> Outcome:
    """Execute a point, unless another runner has it or has done it.

    Args:
        wait: for another runner that has it, until it is done or that runner gives it up.

    Raises:
        CriticalError: `disk_full`: no point can be done any more; SetupError: `output_not_writable`, likewise.
        KeyboardInterrupt: nothing is left of the point.
    """
    with claim(task.root, task.key, wait=wait, failures=task.failures) as ours:
        if not ours:
            return Outcome("elsewhere")
        started, since = datetime.now(UTC), time.monotonic()
        common = {
            "key": task.key,
            "axes": dict(task.axes),
            "started": started.isoformat(),
            "attempts": task.failures + 1,
        }
        try:
            shown = make(task)
        except Exception as error:
            failure = failure_of(error, task.folder.notebook)
            if failure["code"] in HOPELESS:
                raise HOPELESS[failure["code"]](failure["code"], failure["message"], for_all(failure)) from error
            request = task.params.to_wire()
            content = {"status": "failed", "request": request, "seed": task.params.seed, "error": failure}
            write_failure(task.folder, common | content | ended(time.monotonic() - since))
            return Outcome("failed", failure)
        write_manifest(task.folder, common | content_of(task, shown, time.monotonic() - since))
    return Outcome("done")


def for_all(failure: Mapping[str, Any]) -> list[str]:
    """Suggestions for the sweep, from those for one clip: where it lies is not the point's to say."""
    told = [advice for advice in failure["suggestions"] if "outputPath" not in advice]
    return [*told, "Then run the sweep again: what is done stays", "Or choose a folder on another disk: --output"]


def make(task: Task) -> Shown:
    """The run folder's clip, notebook and poster.

    Raises:
        VidkitError: known beforehand or of the notebook; Exception: what else a notebook can fail with.
    """
    folder = task.folder
    clip = folder.clip(task.params.output_format or "mp4")
    # whole, not only what differs from the schema's defaults: the notebook's own parameters have other values
    given = task.params.replace(output_path=str(clip), overwrite=True).model_dump(exclude_none=True)
    shown = read_shown(execute(task.notebook, folder.notebook, given, task.engine))
    if shown.result["output"] != clip.name:
        raise InputError(
            "invalid_request",
            f"The notebook wrote {shown.result['output']}, not the clip of its run folder, {clip.name}.",
            ["Give vidkit.generate the output_path that the notebook was given"],
        )
    record = shown.result["record"]
    if "request" in record and key_of(record) != task.key:  # a bare clip says nothing
        raise InputError(
            "invalid_request",
            "The clip is another than was planned: its request, picture or models have changed on the way.",
            ["Run the sweep again: it is planned anew", "Let the notebook pass the request on as it is given"],
        )
    poster(read_frames(clip)).save(folder.poster)
    return shown


def content_of(task: Task, shown: Shown, seconds: float) -> dict[str, Any]:
    """What a manifest says of a finished clip."""
    folder = task.folder
    return finished_content(
        task.params,
        shown.result["record"],
        shown.result["metadata"],
        seconds=seconds,
        files={"clip": shown.result["output"], "poster": folder.poster.name, "notebook": folder.notebook.name},
        metrics=shown.metrics,
        metrics_seconds=shown.metrics_seconds,
    )


def failure_of(error: Exception, executed: Path) -> dict[str, Any]:
    """The `error` of a failed run: the vidkit error that a cell ended with, else what papermill says."""
    from papermill.exceptions import PapermillExecutionError  # a second, for nbformat's schemas; a sweep that has
    # nothing to run must not wait for it

    described = describe_error(typed(error, executed))
    told = read_error(executed) if isinstance(error, PapermillExecutionError) else None
    if told is not None:
        described |= {name: told[name] for name in ("code", "category", "message", "suggestions")}
    if isinstance(error, PapermillExecutionError):
        described["traceback"] = plain("\n".join(error.traceback))
    return described


def typed(error: Exception, executed: Path) -> Exception:
    from nbclient.exceptions import DeadKernelError

    if isinstance(error, DeadKernelError):
        return CriticalError(
            "process_killed",
            "The kernel died twice over this point.",
            [
                "Look whether the system ended it for its memory: journalctl -k | grep -i oom",
                "Make the point smaller, or leave it out (exclude): vidkit sweep --dry-run tells what does not fit",
            ],
        ).with_traceback(error.__traceback__)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return write_error(executed, error)
    return error


def plain(text: str) -> str:
    """Without the terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
