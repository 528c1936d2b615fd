"""One request from start to finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from vidkit.attempts import until_done
from vidkit.computing import Computation, Job, Stopwatch
from vidkit.confinement import check_allowed, real_output
from vidkit.device import (
    Plan,
    capped_memory,
    chosen_device,
    device_identity,
    device_label,
    peak_memory,
    reset_peak_memory,
)
from vidkit.device_lock import DeviceLock
from vidkit.display import clip_html
from vidkit.images import fit_image
from vidkit.libraries import tell_nobody, uncollected
from vidkit.limits import check_disk
from vidkit.memory.planning import Planned
from vidkit.memory.sharing import plan_with_room
from vidkit.models.files.content_hash import hash_model
from vidkit.models.locate import picture_path
from vidkit.models.loras import check_different
from vidkit.params import GenerationParams
from vidkit.paths import as_asked, path_to_write
from vidkit.placement import allow_growing_segments
from vidkit.progress import COMPUTED, COMPUTING, CancelToken, OnPreview, OnProgress, Reporter
from vidkit.record import AI_GENERATED, file_identity, identities_of, load_picture, make_record, write_clip_sidecar
from vidkit.request_log import clip_in_short, logged_request
from vidkit.resolving import resolve_request
from vidkit.safety.checker import WarmChecker
from vidkit.safety.checks import check_clip, check_pictures, identified
from vidkit.safety.screening import refuse_marked
from vidkit.settings import Settings, load_settings
from vidkit.time_limit import TimeLimit
from vidkit.video import check_target, sidecar_path, write_video
from vidkit.warm import WarmModels

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

#: of the JSON that a result leaves in a notebook: its metadata, its record and the clip's file name
RESULT_MIMETYPE: Final = "application/vnd.vidkit.result+json"

#: is given a clip's frames as they were computed
OnFrames = Callable[["npt.NDArray[np.uint8]"], None]

_lock = threading.Lock()
_warm = WarmModels()
_device = DeviceLock(_warm)
_checker = WarmChecker()

Result = TypeVar("Result")


@dataclass(frozen=True)
class GenerationResult:
    """A finished clip. metadata: as in the JSON protocol; record: what the clip carries of itself.

    answered: its path for whoever asked: as Windows has it, where the request's paths are of Windows; "": as `output`.
    """

    output: Path
    metadata: dict[str, Any]
    record: dict[str, Any] = field(repr=False)
    answered: str = field(default="", repr=False)

    @property
    def seed(self) -> int:
        return int(self.metadata["seed"])

    @property
    def notes(self) -> list[str]:
        return list(self.metadata["notes"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """In a notebook, the clip itself; and for programs that read the notebook, all that is known of it."""
        return {
            "text/plain": repr(self),
            "text/html": clip_html(self.output),
            RESULT_MIMETYPE: {"output": self.output.name, "metadata": self.metadata, "record": self.record},
        }

    def to_json(self) -> dict[str, Any]:
        """The success response of the JSON protocol."""
        return {"status": "success", "output": self.answered or str(self.output), "metadata": self.metadata}


def generate(
    params: GenerationParams | Mapping[str, Any],
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
    on_preview: OnPreview | None = None,
    on_frames: OnFrames | None = None,
) -> GenerationResult:
    """Make one clip. One at a time in a process; the model stays loaded for the next.

    Args:
        params: the request, or its keys as a mapping (snake_case or camelCase).
        on_progress: called with `Progress` events, in this thread.
        on_preview: called while denoising, in this thread, with `(frames, height, width, 3)` uint8: all frames as they
            are now, one pixel for a latent's. At most three times a second, and as often as 2 % of the time allow, what
            the listener takes included.
        on_frames: called once, in this thread, with the frames `(frames, height, width, 3)` uint8 before compression.
        cancel: when set (from any thread), the generation stops at its next step.

    Raises:
        InputError, SetupError, GenerationError, CriticalError: see `vidkit.errors`; nothing is left half-written.
        Cancelled: the token was set.
    """
    request = params if isinstance(params, GenerationParams) else GenerationParams(**params)
    reporter = Reporter(on_progress, cancel)
    with turn(reporter), logged_request(request, "request") as told:
        stopwatch = Stopwatch()
        reporter.tell(0, "Checking the request...")
        settings = load_settings()
        job = prepare(request, settings, reporter)
        check_pictures(_checker, job.screening, job.pictures, reporter)
        shown = on_preview if job.screening.shows_unchecked else None
        frames, plan, notes = compute(job, reporter, stopwatch, shown)
        if check_clip(_checker, job.screening, frames, reporter):
            stopwatch.end("safety")
        if on_frames is not None:
            on_frames(frames)
        record = record_of(job, plan, notes)
        reporter.tell(COMPUTED, "Encoding video...")
        check_allowed(job.target, settings, "output_path", request.output_path)  # a folder may be a link by now
        write(job, frames, record)
        with removed_on_failure(job.target):
            check_allowed(job.target, settings, "output_path", request.output_path)
            reporter.tell(96, "Writing the settings...")
            with removed_on_failure(sidecar_path(job.target)):  # only now: one that was there before is another's
                write_settings(job, record)
                stopwatch.end("write")
                metadata = metadata_of(job, plan, notes, stopwatch)
                reporter.done()
        told |= clip_in_short(job.target, metadata)
    return GenerationResult(job.target, metadata, record, answered_path(request, job.target))


@contextmanager
def turn(reporter: Reporter) -> Iterator[None]:
    """Wait for other threads' generations; a cancelled request stops waiting."""
    while not _lock.acquire(timeout=0.2):
        reporter.check()
    try:
        yield
    finally:
        _lock.release()


def prepare(request: GenerationParams, settings: Settings, reporter: Reporter) -> Job:
    """Everything that can fail without a model in memory, in the order in which it costs time."""
    found = resolve_request(request, settings)
    params = found.params
    pictures = [
        fit_image(load_picture(path, number), params.width or 0, params.height or 0, params.fit)
        for number, path in enumerate(found.pictures)
    ]
    target = path_to_write(params.output_path, ["output_path"]) if params.output_path else dated(settings, params)
    target = real_output(target, settings)
    check_target(target, overwrite=params.overwrite)
    check_disk(params, target, settings.limits, len(pictures))
    reporter.tell(2, "Checking the models...")
    hashes = {name: hash_model(model.path, settings, reporter.check) for name, model in found.models.items()}
    check_different(params, hashes)
    refuse_marked(found.models, settings, hashes)
    return Job(
        params=params,
        family=found.family,
        models=found.models,
        hashes=hashes,
        pictures=pictures,
        identities=[file_identity(path) for path in found.pictures],
        target=target,
        output_format=found.output_format,
        limits=settings.limits,
        notes=found.notes,
        screening=identified(found.screening, settings, reporter.check),
    )


def answered_path(request: GenerationParams, clip: Path) -> str:
    others = (request.image_path, request.last_image_path, request.base_model, request.motion_adapter)
    return as_asked(clip, request.output_path, others)


def dated(settings: Settings, params: GenerationParams) -> Path:
    """A new name in the output folder: date, time, the picture's name and the seed."""
    stem = picture_path(params.image_path).stem[:40]
    name = f"{datetime.now():%Y-%m-%d_%H%M%S}_{stem}_{params.seed}"
    path = settings.output / f"{name}.{params.output_format}"
    number = 2
    while path.exists():
        path = settings.output / f"{name}_{number}.{params.output_format}"
        number += 1
    return path


def compute(
    job: Job, reporter: Reporter, stopwatch: Stopwatch | None = None, on_preview: OnPreview | None = None
) -> tuple[npt.NDArray[np.uint8], Plan, list[str]]:
    """Load, denoise, decode: frames `(frames, height, width, 3)` uint8, the plan executed, notes."""
    stopwatch = stopwatch or Stopwatch()
    computation = Computation(job, reporter, stopwatch, on_preview)
    (frames, notes), planned, attempts = on_the_device(computation, computation.frames)
    return frames, planned.plan, [*notes, *planned.notes, *attempts]


def on_the_device(
    computation: Computation, work: Callable[[Any, Plan], Result], *, ahead: bool = False
) -> tuple[Result, Planned, list[str]]:
    """Wait for the device, load the request's pipeline unless it is warm, and work with it.

    Also the plan with which it was done, and a note for each attempt that failed.

    ahead: nobody waits for it, so no other process gives up its models for it; raises GenerationError `out_of_memory`.
    """
    job, reporter, stopwatch = computation.job, computation.reporter, computation.stopwatch
    stopwatch.begin()
    reporter.tell(5, "Loading libraries...")
    tell_nobody()
    with uncollected():
        import torch

    allow_growing_segments()

    def attempt(planned: Planned) -> Result:
        computation.begin("load")
        stopwatch.begin()
        reporter.tell(COMPUTING, "Loading model...")
        pipe = _warm.pipeline(job, planned.plan, reporter.loading)
        stopwatch.end("load", planned.plan)
        reset_peak_memory(planned.plan)  # what was there before made room or went to another place: not this clip's
        return work(pipe, planned.plan)

    device, waiting_since = chosen_device(), time.monotonic()
    doing = "loading models" if ahead else "making a clip"
    with _device.turn(device_identity(device), device_label(device), doing, reporter.waiting):
        planned = plan_with_room(
            job.params, job.models, _device, reporter.waiting, kept_on_host=_warm.kept_on_host, ahead=ahead
        )
        stopwatch.waited(waiting_since)
        reset_peak_memory(planned.plan)
        # Building modules and some pipelines draw from torch's own generators, which are the caller's. The devices are
        # named because torch warns when it finds several itself.
        devices = range(torch.cuda.device_count()) if device == "cuda" else ()
        with (
            torch.random.fork_rng(devices),
            capped_memory(device, job.limits.memory_bytes),
            reporter.limited(TimeLimit(job.limits.time, planned.plan.applied(job.params))),
        ):
            return until_done(planned, attempt, lambda: computation.phase)


def preload(
    params: GenerationParams | Mapping[str, Any],
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Load a request's models, so that its generation starts at once. Arguments and errors as for `generate`.

    Other processes' models are not unloaded for it: GenerationError `out_of_memory` when there may be no room beside.
    """
    request = params if isinstance(params, GenerationParams) else GenerationParams(**params)
    reporter = Reporter(on_progress, cancel, loading_to=99)
    with turn(reporter), logged_request(request, "loading ahead"):
        reporter.tell(0, "Checking the request...")
        job = prepare(request, load_settings(), reporter)
        on_the_device(Computation(job, reporter, Stopwatch(), None), lambda pipe, plan: None, ahead=True)
        reporter.done()


def unload() -> None:
    """Drop the loaded models and give their memory back; waits for a generation that runs."""
    with _lock:
        _device.unload()
        _checker.drop()


def loaded_models() -> list[str]:
    """The names of the models that are loaded now."""
    return _warm.names


def kept_on_host() -> int:
    """Bytes of the host's memory that loaded models take."""
    return _warm.kept_on_host


def last_pipeline() -> Any:
    """The diffusers pipeline of the last request, as long as it is loaded; None else."""
    return _warm.last_pipeline


def record_of(job: Job, plan: Plan, notes: Sequence[str]) -> dict[str, Any]:
    if job.params.bare:
        return dict(AI_GENERATED)
    models = identities_of(job.params, job.models, job.hashes)
    return make_record(
        job.params,
        models=models,
        pictures=job.identities,
        plan=plan.to_json(),
        notes=[*job.notes, *notes],
        safety_checker=job.screening.to_record(),
    )


def write(job: Job, frames: npt.NDArray[np.uint8], record: Mapping[str, Any]) -> None:
    """The clip. MP4 carries the fitted pictures as cover art."""
    write_video(
        frames,
        job.target,
        fps=job.params.fps,
        output_format=job.output_format,
        record=record,
        cover=job.pictures if job.output_format == "mp4" and not job.params.bare else (),
        overwrite=job.params.overwrite,
    )


def write_settings(job: Job, record: Mapping[str, Any]) -> None:
    """The sidecar, with the fitted pictures where the container takes none."""
    if job.params.bare:
        sidecar_path(job.target).unlink(missing_ok=True)  # of the clip that was overwritten
    else:
        write_clip_sidecar(job.target, record, () if job.output_format == "mp4" else job.pictures)


@contextmanager
def removed_on_failure(file: Path) -> Iterator[None]:
    """A clip without its settings, or one that was cancelled at the last moment, is not left behind; nor are they."""
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def metadata_of(job: Job, plan: Plan, notes: Sequence[str], stopwatch: Stopwatch) -> dict[str, Any]:
    """The `metadata` of the success response: the specification's keys, then ours."""
    params, base, seconds = plan.applied(job.params), job.models["base_model"], stopwatch.total()
    return {
        "pipeline": params.pipeline,
        "model": base.name,
        "prompt": params.prompt,
        "numFrames": params.num_frames,
        "fps": params.fps,
        "duration": round((params.num_frames or 0) / params.fps, 3),
        "resolution": f"{params.width}x{params.height}",
        "generationTime": round(seconds, 2),
        "vramUsed": peak_memory(plan),
        "seed": params.seed,
        "modelHash": job.hashes["base_model"],
        "notes": [*job.notes, *notes],
        "timing": {phase: round(spent, 3) for phase, spent in {**stopwatch.seconds, "total": seconds}.items()},
    }
