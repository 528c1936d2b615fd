"""From a request with everything at hand to its frames: encode, denoise, decode, on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkit.device import Plan
from vidkit.images import fit_image
from vidkit.limits import ResourceLimits
from vidkit.params import GenerationParams, OutputFormat
from vidkit.pipelines import fast
from vidkit.pipelines.arrivals import arriving
from vidkit.pipelines.context_windows import in_windows
from vidkit.pipelines.family import Family, Models
from vidkit.pipelines.preview import previewed
from vidkit.pipelines.turbo import skipping
from vidkit.pipelines.watch import decoder_blocks, denoiser_layers, denoisers, encoder_blocks, watched
from vidkit.placement import forget_recordings, recording, restore
from vidkit.progress import OnPreview, Reporter
from vidkit.request_log import log_phase
from vidkit.safety.screening import Screening
from vidkit.time_limit import Phase
from vidkit.video import check_frames

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image


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
    limits: ResourceLimits
    notes: Sequence[str]
    screening: Screening = field(default_factory=Screening)

    def planned(self, plan: Plan) -> Job:
        """As the plan has it computed. Its pictures are made of the fitted ones, which the clip carries: so it can be
        made again from itself.
        """
        params = plan.applied(self.params)
        pictures = [fit_image(picture, params.width or 0, params.height or 0, params.fit) for picture in self.pictures]
        return replace(self, params=params, pictures=pictures)


class Stopwatch:
    """Seconds by phase of one generation: load, encode, denoise, decode, write. What is in no phase is in the total.

    A phase that several attempts went through is the sum of them. Waiting for other processes is the phase "wait",
    where there was any, and not in the total.
    """

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
        spent, self._since = now - self._since, now
        self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
        log_phase(phase, spent)

    def waited(self, began: float) -> None:
        """From `began` (monotonic) until now others had the device."""
        seconds = time.monotonic() - began
        if seconds > 0.05:
            self.seconds["wait"] = seconds
            self._started += seconds
            self._since += seconds
            log_phase("wait", seconds)

    def total(self) -> float:
        return time.monotonic() - self._started


class Computation:
    """A request's frames. What an attempt has finished the next one takes over: its latents.

    phase: of the present attempt.
    """

    def __init__(self, job: Job, reporter: Reporter, stopwatch: Stopwatch, on_preview: OnPreview | None) -> None:
        self.job, self.reporter, self.stopwatch, self.on_preview = job, reporter, stopwatch, on_preview
        self.phase: Phase = "load"
        self._latents: tuple[GenerationParams, torch.Tensor, list[str]] | None = None

    def begin(self, phase: Phase) -> None:
        self.phase = phase
        self.reporter.begin(phase)

    def frames(self, pipe: Any, plan: Plan) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Frames `(frames, height, width, 3)` and the notes of the family.

        Raises:
            GenerationError: `corrupted_output`; and as torch does it.
        """
        job = self.job.planned(plan)
        with restored(pipe):
            latents, notes = self._denoised(job, pipe, plan)
            self.begin("decode")
            pixels = decode(job, pipe, plan, latents, self.reporter)
        frames = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        check_frames(frames, job.pictures[0])
        levels = (frames * 255).round().astype(np.uint8)
        self.stopwatch.end("decode")
        return levels, notes

    def _denoised(self, job: Job, pipe: Any, plan: Plan) -> tuple[torch.Tensor, list[str]]:
        """Latents on the CPU. Of the request only the decode chunk does not concern them."""
        wanted = job.params.model_copy(update={"decode_chunk_size": 1})
        if self._latents is None or self._latents[0] != wanted or not self._latents[1].isfinite().all():
            self._latents = None
            self.begin("encode")
            self.reporter.tell(15, "Processing image...")
            latents, notes = denoise(job, pipe, self.reporter, lambda: self._encoded(plan), self.on_preview)
            self._latents = wanted, latents.cpu(), [*notes, *fast.notes(plan)]
            self.stopwatch.end("denoise", plan)
        return self._latents[1:]

    def _encoded(self, plan: Plan) -> None:
        self.stopwatch.end("encode", plan)
        self.begin("denoise")


@contextmanager
def restored(pipe: Any) -> Iterator[None]:
    """Whatever happens here, the pipeline is ready for the next clip."""
    try:
        yield
    except BaseException:
        forget_recordings(pipe)
        raise
    finally:
        restore(pipe)


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

    def on_network(share: float) -> None:
        nonlocal begun
        if not begun:
            begun = True
            on_encoded()  # which waits for the GPU: not amid a network, whose call may be recorded

    with (
        # before what asks the network for windows of a clip, and that before what skips whole steps
        recording(pipe),
        in_windows(pipe, job.family.windows(job.params, job.models), job.family.frame_axis) as of_step,
        skipping(pipe, job.params) as speed_notes,
        previewed(pipe, job.pictures[0], on_preview, job.family.frame_axis),
        watched(denoisers(pipe), on_network),
        watched(denoiser_layers(pipe), lambda share: reporter.step(done + of_step(share), steps)),
        # the pictures; between windows, frames too
        watched([*encoder_blocks(pipe.vae), *decoder_blocks(pipe.vae)], lambda share: reporter.check()),
    ):
        latents, notes = job.family.denoise(pipe, job.params, job.models, job.pictures, on_step)
    return latents, [*notes, *speed_notes]


def decode(job: Job, pipe: Any, plan: Plan, latents: torch.Tensor, reporter: Reporter) -> torch.Tensor:
    """Pixels `(frames, 3, height, width)` in [-1, 1] on the CPU, decodeChunkSize frames at a time."""
    import torch

    chunk, frames = job.params.decode_chunk_size, latents.shape[1]
    start, pixels = 0, torch.empty(frames, 3, job.params.height or 0, job.params.width or 0)

    def on_block(share: float) -> None:
        reporter.decoded(min(start + chunk * share, frames), frames)

    with torch.no_grad(), watched(decoder_blocks(pipe.vae), on_block), arriving() as copy:
        for start in range(0, frames, chunk):
            some = latents[:, start : start + chunk].to(plan.device, pipe.vae.dtype)
            copy(job.family.decode(pipe, some), pixels[start : start + chunk])
    return pixels
