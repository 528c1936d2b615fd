"""Peak device memory of a request by phase, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vidkit.device import GIB, Plan
from vidkit.memory.activations import Denoiser, Plane, decoder_peak, encoder_peak
from vidkit.memory.parts import configs_of, weights_of
from vidkit.memory.weights import SIZES
from vidkit.params import GenerationParams
from vidkit.pipelines import animatediff, svd
from vidkit.pipelines.family import Models

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
    """Bytes of device memory by phase; chunk: frames decoded at once."""

    encode: int
    denoise: int
    decode: int
    chunk: int

    @property
    def phase(self) -> str:
        """The phase of the peak: "encode", "denoise" or "decode"."""
        return max(PHASES, key=lambda phase: getattr(self, phase))

    @property
    def peak(self) -> int:
        return max(self.encode, self.denoise, self.decode)


def predict(params: GenerationParams, models: Models, plan: Plan) -> Prediction | None:
    """Peak device memory of a resolved request; a millisecond, no torch. None on a CPU, which has no device memory.

    As PyTorch allocates on CUDA, at speed exact. Not counted: the CUDA context (about 0.5 GiB), and what the allocator
    reserves beyond what it hands out, which is given back when memory is short.

    Raises:
        SetupError: `invalid_model`, when a model's weights or configs cannot be read.
    """
    if plan.device != "cuda":
        return None
    return Request(params, models, plan).prediction()


class Request:
    """The quantities that the phases' peaks are made of."""

    def __init__(self, params: GenerationParams, models: Models, plan: Plan) -> None:
        self.unet, self.vae = configs_of(models)
        self.weights = weights_of(params, models, plan.dtype).with_slack()
        self.size = SIZES[plan.dtype]
        self.frames, self.width, self.height = params.num_frames or 1, params.width or 0, params.height or 0
        self.is_svd = params.pipeline == "svd"
        self.is_v2v = not self.is_svd and params.conditioning == "init"
        self.is_resident = plan.offload == "none"
        self.is_guided = is_guided(params)
        self.windows = svd.windows_of(params, models) if self.is_svd else animatediff.windows_of(self.frames, models)
        self.chunk = min(params.decode_chunk_size, self.frames, V2V_CHUNK if self.is_v2v else self.frames)
        self.encoded_at_once = min(params.decode_chunk_size, self.frames) if self.is_v2v else 1

    def prediction(self) -> Prediction:
        return Prediction(self.encoding(), self.denoising(), self.decoding(self.chunk), self.chunk)

    @property
    def is_free_noise(self) -> bool:
        """Windows inside each step; else a clip longer than a model holds is made window by window."""
        return self.is_v2v and self.frames > self.windows.held

    def latents(self, frames: int, videos: int = 1) -> Plane:
        factor = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return Plane(videos, frames, self.height // factor, self.width // factor, self.size)

    def pixels(self) -> int:
        """Bytes of the pictures that the pipeline keeps on the device: in video-to-video one for each frame."""
        return Plane(1, self.frames if self.is_v2v else 1, self.height, self.width, self.size).of(3)

    def encoding(self) -> int:
        """The image or text encoder has run, and the autoencoder encodes, in full precision where its config says so.

        Offloaded, the first to run stays on the device until the UNet comes.
        """
        found = self.weights
        upcast = bool(self.vae.get("force_upcast", True)) and (self.is_svd or self.is_v2v)
        plane = Plane(1, self.encoded_at_once, self.height, self.width, SIZES["float32"] if upcast else self.size)
        scale = plane.size / self.size
        bytes_ = found.all if self.is_resident else found.encoder + found.vae
        bytes_ += round(found.vae * (scale - 1) + self.pixels() * (scale + 1))
        return max(bytes_ + encoder_peak(self.vae, plane), self.changing_layers()) + CUBLAS

    def changing_layers(self) -> int:
        """FreeNoise makes its layers on the device, with copies of the modules' weights that are then dropped."""
        found = self.weights
        return (found.all if self.is_resident else found.encoder) + found.modules if self.is_free_noise else 0

    def denoising(self) -> int:
        found = self.weights
        bytes_ = found.all if self.is_resident else found.unet + found.vae + found.controlnet
        alive = max(bytes_ + self.pixels() + self.denoiser_peak(), self.changing_layers()) + CUBLAS
        if self.windows.count == 1 or self.is_free_noise:
            return alive
        # between windows, the next one's picture is decoded and encoded
        return max(alive, self.decoding(self.windows.overlap), self.encoding())

    def denoiser_peak(self) -> int:
        frames = self.frames if self.is_free_noise else min(self.frames, self.windows.held)
        share = min(animatediff.WINDOW_FRAMES, self.windows.held) / frames if self.is_free_noise else 0.0
        denoiser, plane = Denoiser.of(self.unet, share), self.latents(frames, 2 if self.is_guided else 1)
        held = self.latents(frames).of(LOOP)
        if not self.weights.controlnet:
            return denoiser.peak(plane, held)
        # what it adds to the skip connections, and that of the step before: for its callback diffusers' loop asks for
        # locals(), which keeps them until the next time (up to Python 3.12)
        added = sum(map(sum, denoiser.skips(plane))) + denoiser.planes(plane)[-1].of(denoiser.channels[-1])
        return denoiser.peak(plane, held + 2 * added, kept_skips=True)

    def decoding(self, frames: int) -> int:
        bytes_ = self.weights.all if self.is_resident else self.weights.vae
        clip = self.latents(self.frames).of(self.vae["latent_channels"])
        return bytes_ + clip + decoder_peak(self.vae, self.latents(frames), temporal=self.is_svd) + CUBLAS


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
