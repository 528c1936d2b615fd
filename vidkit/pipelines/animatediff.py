"""AnimateDiff: a Stable Diffusion 1.5 model and a motion adapter, conditioned on a picture and on text.

diffusers' AnimateDiffPipeline takes no picture, so each conditioning mode is another of its pipelines:
init: AnimateDiffVideoToVideoPipeline over the picture repeated, with a strength; sparsectrl:
AnimateDiffSparseControlNetPipeline, the picture as first (and another as last) frame; pia: PIAPipeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import InputError, SetupError
from vidkit.models.locate import CARD_FILE, Model, invalid_config, locate, locate_base, read_json
from vidkit.models.single_file import check_sd15_checkpoint
from vidkit.params import GenerationParams, Limits, bounds_of
from vidkit.pipelines.family import Models, OnStep, size_multiple, step_callback, weight_variant
from vidkit.pipelines.prompts import encode_prompts
from vidkit.settings import Settings

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from PIL import Image

SINGLE_FILE: Final = "single file"
BASE_KINDS: Final = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "AnimateDiffPipeline",
    "AnimateDiffVideoToVideoPipeline",
    SINGLE_FILE,
)
IGNORED: Final = {"motion_bucket_id": "AnimateDiff's motion comes from the prompt and the motion adapter"}

#: as in the original specification; what a motion adapter was trained with is linear too
SCHEDULER: Final = {"timestep_spacing": "trailing", "beta_schedule": "linear"}

#: FreeNoise's windows (arXiv 2310.15169, as diffusers' documentation uses it): 16 frames, the next 4 further on
WINDOW_FRAMES: Final = 16
WINDOW_STRIDE: Final = 4

MAX_STEPS: Final = bounds_of(GenerationParams.model_fields["num_inference_steps"])["le"]


class AnimateDiff:
    """The conditioning modes share everything but the pipeline class and the way the picture is handed over."""

    def models(self, params: GenerationParams, settings: Settings) -> Models:
        found = {"base_model": locate_base(params, settings, BASE_KINDS, bundled=None)}
        if found["base_model"].kind == SINGLE_FILE:
            check_sd15_checkpoint(found["base_model"].path)  # by its header, before gigabytes are hashed
        found["motion_adapter"] = part(params, settings, "motion_adapter", "MotionAdapter")
        check_adapter(found["motion_adapter"], params)
        if params.conditioning == "sparsectrl":
            found["controlnet"] = part(params, settings, "controlnet", "SparseControlNetModel")
        return found

    def limits(self, params: GenerationParams, models: Models) -> Limits:
        base, adapter = models["base_model"], models["motion_adapter"]
        folder = check_sd15_checkpoint(base.path) if base.kind == SINGLE_FILE else base.path
        defaults = {"width": 512, "height": 512, "num_frames": 16, "num_inference_steps": 25} | base.card_defaults()
        check_steps(params, params.num_inference_steps or defaults["num_inference_steps"])
        ranges: dict[str, tuple[float, float]] = {}
        if params.conditioning != "init":  # only the video-to-video pipeline has windows
            ranges["num_frames"] = (2, held_frames(adapter))
        return Limits(
            model=base.name,
            defaults=defaults,
            ranges=ranges | base.card_ranges(),
            # unlike SVD's, this UNet takes latents of any size
            size_multiple=size_multiple(read_json(folder / "vae" / "config.json")),
            ignored=IGNORED,
        )

    def load(self, params: GenerationParams, models: Models, dtype: torch.dtype) -> DiffusionPipeline:
        from diffusers import MotionAdapter, SparseControlNetModel

        options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
        parts = {"motion_adapter": MotionAdapter.from_pretrained(models["motion_adapter"].path, **options)}
        if params.conditioning == "sparsectrl":
            parts["controlnet"] = SparseControlNetModel.from_pretrained(models["controlnet"].path, **options)
        pipe: DiffusionPipeline = load_base(pipeline_class(params), models["base_model"], parts, options)
        set_scheduler(pipe, models["base_model"])
        return pipe

    def denoise(
        self, pipe: Any, params: GenerationParams, pictures: Sequence[Image.Image], on_step: OnStep
    ) -> tuple[torch.Tensor, list[str]]:
        import torch

        prompt, negative, notes = encode_prompts(pipe, params.prompt, params.negative_prompt)
        with windows(pipe, params.num_frames or 1) as window_notes:
            torch.manual_seed(params.seed)  # SparseCtrl's pipeline encodes its pictures with torch's own generator
            latents: torch.Tensor = pipe(
                prompt_embeds=prompt,
                negative_prompt_embeds=negative,
                width=params.width,
                height=params.height,
                num_inference_steps=params.num_inference_steps,
                guidance_scale=params.guidance_scale,
                generator=torch.Generator().manual_seed(params.seed),
                output_type="latent",
                callback_on_step_end=step_callback(on_step),
                **picture_arguments(params, list(pictures)),
            ).frames
        return latents.transpose(1, 2), [*notes, *window_notes]

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = pipe.decode_latents(latents.transpose(1, 2))
        return pixels[0].transpose(0, 1)


def part(params: GenerationParams, settings: Settings, name: str, kind: str) -> Model:
    """A model beside the base: the motion adapter, the SparseCtrl model."""
    wanted, role = getattr(params, name), name.replace("_", " ")
    if wanted is None:
        key = "motionAdapter" if name == "motion_adapter" else name
        raise SetupError(
            "model_not_found",
            f"animatediff with conditioning {params.conditioning} needs a {role}, and the request names none.",
            [f"Set {key} to the folder of a {kind}", "Use pipeline svd, which needs no other model"],
        )
    return locate(wanted, settings, [kind], role)


def check_adapter(adapter: Model, params: GenerationParams) -> None:
    """A PIA adapter has nine input channels of its own; it and the pia mode need each other."""
    is_pia = adapter.config().get("conv_in_channels") is not None
    if is_pia != (params.conditioning == "pia"):
        what = "a PIA adapter" if is_pia else "a plain motion adapter"
        fitting = "pia" if is_pia else "init or sparsectrl"
        raise SetupError(
            "invalid_model",
            f"{adapter.name} is {what}; it does not work with conditioning {params.conditioning}.",
            [f"Set conditioning to {fitting}", "Choose another motion adapter"],
        )


def held_frames(adapter: Model) -> int:
    """How many frames a motion adapter has positions for: 32 for all published ones."""
    return int(adapter.config().get("motion_max_seq_length", 32))


@contextmanager
def windows(pipe: Any, frames: int) -> Iterator[list[str]]:
    """Sliding windows while the block runs, for a clip longer than the motion adapter; yields the notes on them."""
    held = int(pipe.motion_adapter.config.motion_max_seq_length)
    if frames <= held:
        yield []
        return
    length = min(WINDOW_FRAMES, held)
    try:
        pipe.enable_free_noise(context_length=length, context_stride=WINDOW_STRIDE)
        # The blocks have their windows now. Without this, the call would refuse ready-made embeddings and encode the
        # prompt itself, cut at 77 tokens, into the same embedding for every frame.
        pipe._free_noise_context_length = None
        yield [
            f"{frames} frames are more than the motion adapter's {held}: made in sliding windows of {length} frames "
            "(FreeNoise)."
        ]
    finally:
        pipe.disable_free_noise()


def check_steps(params: GenerationParams, steps: int) -> None:
    """Video-to-video runs steps x strength steps, and fails obscurely when that is none."""
    if params.conditioning != "init" or int(steps * params.strength) >= 1:
        return
    suggestions = [f"Set strength to at least {math.ceil(100 / steps) / 100:g}"]
    if (enough := math.ceil(1 / params.strength) + 1) <= MAX_STEPS:
        suggestions.append(f"Set numInferenceSteps to {enough}")
    raise InputError(
        "out_of_range",
        f"numInferenceSteps {steps} times strength {params.strength:g} leaves no step to run.",
        suggestions,
    )


def pipeline_class(params: GenerationParams) -> Any:
    import diffusers

    names = {
        "init": "AnimateDiffVideoToVideoPipeline",
        "sparsectrl": "AnimateDiffSparseControlNetPipeline",
        "pia": "PIAPipeline",
    }
    return getattr(diffusers, names[params.conditioning])


def load_base(cls: Any, base: Model, parts: dict[str, Any], options: dict[str, Any]) -> Any:
    if base.kind == SINGLE_FILE:
        from vidkit.models.single_file import load_sd15_components

        return cls(**load_sd15_components(base.path, options["dtype"]), **parts)
    return cls.from_pretrained(base.path, **parts, **options, variant=weight_variant(base.path, options["dtype"]))


def set_scheduler(pipe: Any, base: Model) -> None:
    """Euler with trailing spacing and linear betas, unless the model's card names its own scheduler."""
    import diffusers

    own = base.card.get("scheduler")
    if own == "model":  # the checkpoint's scheduler as it was saved
        return
    if own is None:
        own = {"class": "EulerDiscreteScheduler", "config": SCHEDULER}
    if not isinstance(own, dict) or not isinstance(own.get("config", {}), dict):
        raise invalid_config(base.path / CARD_FILE, 'scheduler must be "model" or {"class": NAME, "config": {}}')
    name = str(own.get("class"))
    cls = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if cls is None:
        raise invalid_config(base.path / CARD_FILE, f"diffusers has no scheduler {name!r}")
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **own.get("config", {}))


def picture_arguments(params: GenerationParams, pictures: list[Image.Image]) -> dict[str, Any]:
    """How each conditioning mode's pipeline is handed the pictures."""
    if params.conditioning == "init":
        # encode as many frames at once as are decoded at once: the same memory
        repeated = [pictures[0]] * (params.num_frames or 1)
        return {"video": repeated, "strength": params.strength, "decode_chunk_size": params.decode_chunk_size}
    if params.conditioning == "sparsectrl":
        return {
            "num_frames": params.num_frames,
            "conditioning_frames": pictures,
            "controlnet_frame_indices": [0, (params.num_frames or 1) - 1][: len(pictures)],
            "controlnet_conditioning_scale": params.conditioning_scale,
        }
    return {"num_frames": params.num_frames, "image": pictures[0], "motion_scale": params.motion_scale}
