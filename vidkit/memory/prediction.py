"""Peak device memory of a request by phase, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final

from vidkit.device import GIB, Plan
from vidkit.memory.activations import PLAIN, Denoiser, Forwards, Plane, decoder_peak, encoder_peak
from vidkit.memory.fast_activations import FAST
from vidkit.memory.lean_activations import LeanDecoder, LeanDenoiser
from vidkit.memory.parts import configs_of, weights_of
from vidkit.memory.weights import SIZES, in_pinned_memory
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.pipelines.lean.slicing import SLICE_BYTES, Slicing
from vidkit.pipelines.windows import HANDED_OVER, Windows

#: cuBLAS takes it with the first matrix product and keeps it (32 MiB on Hopper, 8 on others)
CUBLAS: Final = 32 * 2**20

#: values for each latent pixel of a clip that the denoising loop keeps: latents, the model's input (its channels twice,
#: as scaled and as joined), picture latents, the last step's, for both halves of guidance. Small beside the UNet's.
LOOP: Final = 48

#: frames that video-to-video's decode_latents decodes at once, at most (its default in diffusers)
V2V_CHUNK: Final = 16

#: the share of the peak by which a prediction may be wrong; ten times what was found for full-size models
TOLERANCE: Final = 0.05

PHASES: Final = {"encode": "encoding the picture", "denoise": "denoising", "decode": "decoding"}


@dataclass(frozen=True)
class Prediction:
    """Bytes by phase in the memory of the plan's device; chunk: frames decoded at once.

    host: bytes that wait in the host's memory meanwhile, weights and skip connections; of a plan on the CPU none, since
    all is there.
    """

    encode: int
    denoise: int
    decode: int
    chunk: int
    host: int = 0

    @property
    def phase(self) -> str:
        """The phase of the peak: "encode", "denoise" or "decode"."""
        return max(PHASES, key=lambda phase: getattr(self, phase))

    @property
    def peak(self) -> int:
        return max(self.encode, self.denoise, self.decode)


def predict(params: GenerationParams, models: Models, plan: Plan) -> Prediction:
    """Peak memory of a resolved request under a plan, its changes among it; a millisecond, no torch.

    As PyTorch allocates on CUDA. On the CPU tensors are the same, at speed fast as at exact, and what its convolutions
    take is not known as well. Not counted: the CUDA context (about 0.5 GiB), and what the allocator reserves beyond
    what it hands out, which is given back when memory is short.

    Raises:
        SetupError: `invalid_model`, when a model's weights or configs cannot be read.
    """
    return Request(plan.applied(params), models, plan).prediction()


class Request:
    """The quantities that the phases' peaks are made of; params: as they are computed."""

    def __init__(self, params: GenerationParams, models: Models, plan: Plan) -> None:
        self.unet, self.vae = configs_of(models)
        self.plan = plan
        self.weights = weights_of(params, models, plan.dtype).with_slack()
        self.size = SIZES[plan.dtype]
        self.frames, self.width, self.height = params.num_frames or 1, params.width or 0, params.height or 0
        self.is_svd = params.pipeline == "svd"
        self.is_v2v = not self.is_svd and params.conditioning == "init"
        self.is_resident = plan.offload == "none"
        self.is_guided = is_guided(params)
        self.windows: Windows = FAMILIES[params.pipeline].windows(params, models)
        self.chunk = min(params.decode_chunk_size, self.frames, V2V_CHUNK if self.is_v2v else self.frames)
        #: SVD and video-to-video encode in full precision where the config says so, whatever the plan: SVD's pipeline
        #: for float16 alone, `still_video` for all that is not single precision
        upcasts = self.is_v2v or (self.is_svd and plan.dtype == "float16")
        self.is_upcast = bool(self.vae.get("force_upcast", True)) and upcasts

    def prediction(self) -> Prediction:
        return Prediction(self.encoding(), self.denoising(), self.decoding(self.chunk), self.chunk, self.waiting())

    # --- the phases -------------------------------------------------------------------------------------------------

    def encoding(self) -> int:
        """The image or text encoder runs, then the autoencoder encodes."""
        size = SIZES["float32"] if self.is_upcast else self.vae_size
        picture = round(self.pixels() * (size / self.size + 1))
        peak = encoder_peak(self.vae, Plane(1, 1, self.height, self.width, size)) + picture
        bytes_ = self.on_device(self.weights.vae, vae_size=size) + peak
        return max(bytes_, self.on_device(self.weights.encoder)) + self.cublas

    def denoising(self) -> int:
        alive = self.pixels() + self.denoiser_peak()
        alive += self.on_device(self.denoiser_weights()) + self.cublas
        if self.windows.calls == 1:
            return alive
        # between windows, the next one's picture is decoded and encoded
        return max(alive, self.decoding(min(HANDED_OVER, self.windows.overlap)), self.encoding())

    def decoding(self, frames: int) -> int:
        clip = self.latents(self.frames).of(self.vae["latent_channels"])
        return self.on_device(self.weights.vae, vae_size=self.vae_size) + clip + self.decoder_peak(frames) + self.cublas

    # --- weights ----------------------------------------------------------------------------------------------------

    def on_device(self, computing: int, *, vae_size: int | None = None) -> int:
        """Bytes of weights while a part of so many computes; vae_size: of the autoencoder's values then."""
        found = self.weights
        wider = round(found.vae * ((vae_size or self.resting_vae_size) / self.size - 1))
        return found.all + wider if self.is_resident else computing + (wider if vae_size else 0)

    @property
    def vae_size(self) -> int:
        """Bytes of a value as the autoencoder decodes."""
        return SIZES["float32"] if self.plan.vae_float32 else self.size

    @property
    def resting_vae_size(self) -> int:
        """Where it encoded in full precision by itself, it was cast back."""
        return self.size if self.is_upcast else self.vae_size

    def denoiser_weights(self) -> int:
        found = self.weights
        return found.by_layers if self.plan.offload == "layers" else found.unet + found.controlnet

    @property
    def cublas(self) -> int:
        return CUBLAS if self.plan.device == "cuda" else 0

    def waiting(self) -> int:
        """Bytes in the host's memory: all weights where some are offloaded, since none are copied back; skips."""
        if self.plan.device == "cpu":
            return 0
        skips = sum(map(in_pinned_memory, [*self.skips(self.videos), *self.residuals]))
        found = self.weights
        layers = found.pinned - found.unet - found.controlnet if self.plan.offload == "layers" else 0
        return (skips if self.plan.host_skips else 0) + (0 if self.is_resident else found.all + layers)

    # --- activations ------------------------------------------------------------------------------------------------

    def latents(self, frames: int, videos: int = 1, size: int | None = None) -> Plane:
        """size: bytes of a value, the UNet's by default."""
        factor = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return Plane(videos, frames, self.height // factor, self.width // factor, size or self.size)

    def pixels(self) -> int:
        """Bytes of the picture that the pipeline keeps on the device."""
        return Plane(1, 1, self.height, self.width, self.size).of(3)

    @property
    def denoised_at_once(self) -> int:
        return min(self.frames, self.windows.held)

    @property
    def videos(self) -> int:
        """In one call of the UNet."""
        return 2 if self.is_guided and not self.plan.halves else 1

    @property
    def slicing(self) -> Slicing | None:
        """Of networks whose layers are lean; None: diffusers' own."""
        if not (self.plan.slices or self.plan.host_skips):
            return None
        return Slicing(SLICE_BYTES if self.plan.slices else None, self.plan.host_skips)

    @property
    def forwards(self) -> Forwards:
        """Of layers that are not lean."""
        is_fast = self.plan.device == "cuda" and self.plan.speed != "exact" and self.slicing is None
        return FAST if is_fast and is_triton_there() else PLAIN

    def skips(self, videos: int) -> list[int]:
        """Bytes of each skip connection."""
        levels = Denoiser.of(self.unet).skips(self.latents(self.denoised_at_once, videos))
        return [skip for level in levels for skip in level]

    @property
    def residuals(self) -> list[int]:
        """Bytes of what a ControlNet adds to the skip connections and in the middle, for both halves of guidance."""
        skips = self.skips(2 if self.is_guided else 1) if self.weights.controlnet else []
        return [*skips, *skips[-1:]]

    def denoiser_peak(self) -> int:
        denoiser = Denoiser.of(self.unet, self.forwards)
        plane = self.latents(self.denoised_at_once, self.videos)
        kept = self.frames if self.windows.together else self.denoised_at_once
        held, added = self.latents(kept).of(LOOP), sum(self.residuals)
        if self.slicing is None:
            # also of the step before: for its callback diffusers' loop asks for locals(), which keeps them until the
            # next time (up to Python 3.12)
            return denoiser.peak(plane, held + 2 * added, kept_skips=added > 0)
        if self.is_guided and self.plan.halves and not self.plan.host_skips:
            held += added // 2  # the second half's
        return LeanDenoiser(denoiser, plane, self.slicing, residuals=added > 0).bytes_at_peak(held)

    def decoder_peak(self, frames: int) -> int:
        latents = self.latents(frames, size=self.vae_size)
        if not self.plan.slices:
            return decoder_peak(self.vae, latents, temporal=self.is_svd, forwards=self.forwards)
        if self.is_svd:
            return LeanDecoder(self.vae, Slicing(SLICE_BYTES)).bytes_at_peak(latents)
        # the plain autoencoder decodes one frame after the other
        pictures = Plane(1, frames, self.height, self.width, self.vae_size).of(3)
        return pictures + decoder_peak(self.vae, self.latents(1, size=self.vae_size), temporal=False)


@cache
def is_triton_there() -> bool:
    """Whether it is installed; whether it works would take a second or three to say, and the GPU."""
    return find_spec("triton") is not None


def is_guided(params: GenerationParams) -> bool:
    """Whether both halves of classifier-free guidance are computed, in one batch."""
    scale = params.max_guidance_scale if params.pipeline == "svd" else params.guidance_scale
    return scale is not None and scale > 1


def words(prediction: Prediction, free: int | None) -> str:
    """One line: the peak, where it is, and whether it fits into `free` bytes (None: not known)."""
    where = PHASES[prediction.phase]
    if prediction.phase == "decode":
        where += f" ({prediction.chunk} frame{'s' if prediction.chunk > 1 else ''} at once)"
    text = f"peak {prediction.peak / GIB:.1f} GiB in {where}"
    if free is None:
        return text
    spare = free - prediction.peak
    if spare < 0:
        verdict = f"does not fit, {-spare / GIB:.1f} GiB too few"
    else:
        fits = "fits" if spare >= TOLERANCE * prediction.peak else "just fits"
        verdict = f"{fits} with {spare / GIB:.1f} GiB to spare"
    return f"{text}; {free / GIB:.1f} GiB are free: {verdict}"
