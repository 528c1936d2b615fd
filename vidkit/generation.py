"""One request from start to finish."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors import SafetensorError

from vidkit.device import Plan, make_plan, peak_memory, place, reset_peak_memory, restore, typed_failure, typed_failures
from vidkit.display import clip_html
from vidkit.errors import SetupError
from vidkit.images import fit_image
from vidkit.libraries import quiet
from vidkit.models.content_hash import hash_model
from vidkit.models.warm import WarmPipeline
from vidkit.params import GenerationParams, OutputFormat, wire_name
from vidkit.pipelines.family import Family, Models
from vidkit.pipelines.preview import previewed
from vidkit.pipelines.watch import decoder_blocks, denoiser_layers, encoder_blocks, watched
from vidkit.progress import CancelToken, OnPreview, OnProgress, Reporter
from vidkit.record import AI_GENERATED, file_identity, load_picture, make_record, write_clip_sidecar
from vidkit.resolving import resolve_request
from vidkit.settings import Settings, load_settings
from vidkit.video import check_frames, check_target, sidecar_path, write_video

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import torch
    from PIL import Image

logger = logging.getLogger("vidkit")

#: what diffusers, transformers and safetensors raise over files that are missing, cut short or do not fit together
LOAD_ERRORS: Final = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError)

#: of the JSON that a result leaves in a notebook: its metadata, its record and the clip's file name
RESULT_MIMETYPE: Final = "application/vnd.vidkit.result+json"

_lock = threading.Lock()
_warm = WarmPipeline()
_warm_names: list[str] = []  # of the models in it


@dataclass(frozen=True)
class GenerationResult:
    """A finished clip. metadata: as in the JSON protocol; record: what the clip carries of itself."""

    output: Path
    metadata: dict[str, Any]
    record: dict[str, Any] = field(repr=False)

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
        return {"status": "success", "output": str(self.output), "metadata": self.metadata}


class Stopwatch:
    """Seconds by phase of one generation: load, encode, denoise, decode, write. What is in no phase is in the total."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = self._since = time.monotonic()

    def begin(self) -> None:
        """The next phase begins now."""
        self._since = time.monotonic()

    def end(self, phase: str, plan: Plan | None = None) -> None:
        """A phase ends, and the next begins. plan: where it ran; a GPU is waited for, which works on by itself."""
        if plan is not None and plan.device == "cuda":
            import torch

            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds[phase] = now - self._since
        self._since = now

    def total(self) -> float:
        return time.monotonic() - self._started


@dataclass(frozen=True)
class Job:
    """A request with everything it needs at hand: resolved, its seed drawn, models found, pictures fitted."""

    params: GenerationParams
    family: Family
    models: Models
    hashes: Mapping[str, str]
    pictures: Sequence[Image.Image]
    identities: Sequence[Mapping[str, str]]
    target: Path
    output_format: OutputFormat
    notes: Sequence[str]


def generate(
    params: GenerationParams | Mapping[str, Any],
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
    on_preview: OnPreview | None = None,
) -> GenerationResult:
    """Make one clip. One at a time in a process; the model stays loaded for the next.

    Args:
        params: the request, or its keys as a mapping (snake_case or camelCase).
        on_progress: called with `Progress` events, in this thread.
        on_preview: called while denoising, in this thread, with `(frames, height, width, 3)` uint8: all frames as they
            are now, one pixel for a latent's. At most three times a second, and as often as 2 % of the time allow, what
            the listener takes included.
        cancel: when set (from any thread), the generation stops at its next step.

    Raises:
        InputError, SetupError, GenerationError, CriticalError: see `vidkit.errors`; nothing is left half-written.
        Cancelled: the token was set.
    """
    request = params if isinstance(params, GenerationParams) else GenerationParams(**params)
    reporter = Reporter(on_progress, cancel)
    with turn(reporter):
        stopwatch = Stopwatch()
        reporter.tell(0, "Checking the request...")
        job = prepare(request, load_settings(), reporter)
        frames, plan, notes = compute(job, reporter, stopwatch, on_preview)
        record = record_of(job, plan, notes)
        reporter.tell(95, "Encoding video...")
        write(job, frames, record)
        with removed_on_failure(job.target):
            reporter.tell(96, "Writing the settings...")
            write_settings(job, record)
            stopwatch.end("write")
            metadata = metadata_of(job, plan, notes, stopwatch)
            reporter.done()
    return GenerationResult(job.target, metadata, record)


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
    target = Path(params.output_path).expanduser().absolute() if params.output_path else dated(settings, params)
    check_target(target, overwrite=params.overwrite)
    reporter.tell(2, "Checking the models...")
    hashes = {name: hash_model(model.path, settings, reporter.check) for name, model in found.models.items()}
    return Job(
        params=params,
        family=found.family,
        models=found.models,
        hashes=hashes,
        pictures=pictures,
        identities=[file_identity(path) for path in found.pictures],
        target=target,
        output_format=found.output_format,
        notes=found.notes,
    )


def dated(settings: Settings, params: GenerationParams) -> Path:
    """A new name in the output folder: date, time, the picture's name and the seed."""
    stem = Path(params.image_path.removeprefix("example:")).stem[:40]
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
    stopwatch.begin()
    reporter.tell(5, "Loading libraries...")
    import torch

    plan = make_plan()
    reset_peak_memory(plan)

    def work() -> tuple[torch.Tensor, list[str]]:
        reporter.tell(10, "Loading model...")
        pipe = warm_pipeline(job, plan)
        stopwatch.end("load", plan)
        reporter.tell(15, "Processing image...")
        with restored_on_failure(pipe, plan):
            latents, notes = denoise(job, pipe, reporter, lambda: stopwatch.end("encode", plan), on_preview)
            stopwatch.end("denoise", plan)
            return decode(job, pipe, latents, reporter), notes

    # Building modules and some pipelines draw from torch's own generators, which are the caller's. The devices are
    # named because torch warns when it finds several itself.
    devices = range(torch.cuda.device_count()) if plan.device == "cuda" else ()
    with torch.random.fork_rng(devices):
        pixels, notes = typed_failures(job.params, work)
    frames = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    check_frames(frames, job.pictures[0])
    levels = (frames * 255).round().astype(np.uint8)
    stopwatch.end("decode")
    return levels, plan, notes


def preload(
    params: GenerationParams | Mapping[str, Any],
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Load a request's models, so that its generation starts at once. Arguments and errors as for `generate`."""
    request = params if isinstance(params, GenerationParams) else GenerationParams(**params)
    reporter = Reporter(on_progress, cancel)
    with turn(reporter):
        reporter.tell(0, "Checking the request...")
        job = prepare(request, load_settings(), reporter)
        reporter.tell(5, "Loading libraries...")
        import torch

        plan = make_plan()
        reporter.tell(10, "Loading model...")
        devices = range(torch.cuda.device_count()) if plan.device == "cuda" else ()
        with torch.random.fork_rng(devices):
            typed_failures(job.params, lambda: warm_pipeline(job, plan))
        reporter.done()


def unload() -> None:
    """Drop the loaded models and give their memory back; waits for a generation that runs."""
    with _lock:
        _warm.drop()
        _warm_names.clear()


def loaded_models() -> list[str]:
    """The names of the models that are loaded now."""
    return list(_warm_names)


def warm_pipeline(job: Job, plan: Plan) -> Any:
    """The request's pipeline, loaded unless it is the one that is warm."""
    import torch

    def load() -> Any:
        _warm_names.clear()
        return loaded(job, getattr(torch, plan.dtype), plan)

    pipe = _warm.get(warm_key(job, plan), load)
    _warm_names[:] = [model.name for model in job.models.values()]
    return pipe


def warm_key(job: Job, plan: Plan) -> tuple[Any, ...]:
    """What a loaded pipeline depends on. The conditioning decides its class, and what of a PIA adapter is loaded."""
    return (job.params.pipeline, job.params.conditioning, *sorted(job.hashes.items()), plan.device, plan.offload)


def loaded(job: Job, dtype: torch.dtype, plan: Plan) -> Any:
    logger.info("loading %s", ", ".join(model.name for model in job.models.values()))
    with quiet():
        try:
            pipe = job.family.load(job.params, job.models, dtype)
        except LOAD_ERRORS as error:
            if typed_failure(error, job.params) is not None:  # out of memory and the like: not the model's fault
                raise
            raise unloadable(job, error) from error
    place(pipe, plan)
    return pipe


def unloadable(job: Job, error: Exception) -> SetupError:
    names = ", ".join(model.name for model in job.models.values())
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return SetupError(
        "invalid_model",
        f"{names} does not load; a file may be missing, incomplete or damaged: {reason}",
        ["Fetch the model again", "Check that its parts belong together (Stable Diffusion 1.5 for animatediff)"],
    )


@contextmanager
def restored_on_failure(pipe: Any, plan: Plan) -> Iterator[None]:
    try:
        yield
    except BaseException:
        restore(pipe, plan)
        raise


def denoise(
    job: Job, pipe: Any, reporter: Reporter, on_encoded: Callable[[], None], on_preview: OnPreview | None = None
) -> tuple[torch.Tensor, list[str]]:
    """Latents `(1, frames, channels, height, width)` and notes; progress and cancel at each layer of the UNet.

    on_encoded: called once, as the first denoising step begins: pictures and text are encoded then.
    """
    done, steps = 0, job.family.steps(pipe, job.params, job.models)
    begun = False

    def on_step() -> None:
        nonlocal done
        done += 1
        reporter.step(done, steps)

    def on_layer(share: float) -> None:
        nonlocal begun
        if not begun:
            begun = True
            on_encoded()
        reporter.step(done + share, steps)

    with (
        previewed(pipe, job.pictures[0], on_preview, job.family.frame_axis),
        watched(denoiser_layers(pipe), on_layer),
        # the pictures; between windows, frames too
        watched([*encoder_blocks(pipe.vae), *decoder_blocks(pipe.vae)], lambda share: reporter.check()),
    ):
        return job.family.denoise(pipe, job.params, job.models, job.pictures, on_step)


def decode(job: Job, pipe: Any, latents: torch.Tensor, reporter: Reporter) -> torch.Tensor:
    """Pixels `(frames, 3, height, width)` in [-1, 1] on the CPU, decodeChunkSize frames at a time."""
    import torch

    chunk, frames = job.params.decode_chunk_size, latents.shape[1]
    parts: list[torch.Tensor] = []

    def on_block(share: float) -> None:
        reporter.decoded(min(chunk * (len(parts) + share), frames), frames)

    with torch.no_grad(), watched(decoder_blocks(pipe.vae), on_block):
        for start in range(0, frames, chunk):
            parts.append(job.family.decode(pipe, latents[:, start : start + chunk]).float().cpu())
    pipe.maybe_free_model_hooks()
    return torch.cat(parts)


def record_of(job: Job, plan: Plan, notes: Sequence[str]) -> dict[str, Any]:
    if job.params.bare:
        return dict(AI_GENERATED)
    models = {
        wire_name(name): {"name": job.models[name].stored_name, "sha256": job.hashes[name]} for name in job.models
    }
    return make_record(
        job.params, models=models, pictures=job.identities, plan=plan.to_json(), notes=[*job.notes, *notes]
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
def removed_on_failure(clip: Path) -> Iterator[None]:
    """A clip without its settings, or one that was cancelled at the last moment, is not left behind."""
    try:
        yield
    except BaseException:
        clip.unlink(missing_ok=True)
        sidecar_path(clip).unlink(missing_ok=True)
        raise


def metadata_of(job: Job, plan: Plan, notes: Sequence[str], stopwatch: Stopwatch) -> dict[str, Any]:
    """The `metadata` of the success response: the specification's keys, then ours."""
    params, base, seconds = job.params, job.models["base_model"], stopwatch.total()
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
