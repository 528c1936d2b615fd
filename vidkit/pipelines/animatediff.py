"""AnimateDiff: a Stable Diffusion 1.5 model and a motion adapter, conditioned on a picture and on text.

diffusers' AnimateDiffPipeline takes no picture, so each conditioning mode is another of its pipelines:
init: AnimateDiffVideoToVideoPipeline over the picture repeated, with a strength; sparsectrl:
AnimateDiffSparseControlNetPipeline, the picture as first (and another as last) frame; pia: PIAPipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import InputError, SetupError
from vidkit.models.locate import Model, locate, locate_base
from vidkit.params import GenerationParams, Limits
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


class AnimateDiff:
    """The conditioning modes share everything but the pipeline class and the way the picture is handed over."""

    def models(self, params: GenerationParams, settings: Settings) -> Models:
        found = {"base_model": locate_base(params, settings, BASE_KINDS, bundled=None)}
        found["motion_adapter"] = part(params, settings, "motion_adapter", "MotionAdapter")
        check_adapter(found["motion_adapter"], params)
        if params.conditioning == "sparsectrl":
            found["controlnet"] = part(params, settings, "controlnet", "SparseControlNetModel")
        return found

    def limits(self, params: GenerationParams, models: Models) -> Limits:
        base, adapter = models["base_model"], models["motion_adapter"]
        multiple = 64 if base.kind == SINGLE_FILE else size_multiple(base.config("unet"), base.config("vae"))
        defaults = {"width": 512, "height": 512, "num_frames": 16, "num_inference_steps": 25}
        ranges: dict[str, tuple[float, float]] = {}
        if params.conditioning != "init":  # only the video-to-video pipeline has windows
            ranges["num_frames"] = (2, held_frames(adapter))
        return Limits(
            model=base.name,
            defaults=defaults | base.card_defaults(),
            ranges=ranges | base.card_ranges(),
            size_multiple=max(8, multiple),
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

        check_steps(params)
        prompt, negative, notes = encode_prompts(pipe, params.prompt, params.negative_prompt)
        windows = params.num_frames > held_positions(pipe)  # type: ignore[operator]
        if windows:
            pipe.enable_free_noise(context_length=WINDOW_FRAMES, context_stride=WINDOW_STRIDE)
            notes.append(
                f"{params.num_frames} frames are more than the motion adapter's {held_positions(pipe)}: made in "
                f"sliding windows of {WINDOW_FRAMES} frames (FreeNoise)."
            )
        try:
            # SparseCtrl's pipeline draws from torch's own generator too; windows shuffle with it
            with torch.random.fork_rng():
                torch.manual_seed(params.seed)
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
        finally:
            if windows:
                pipe.disable_free_noise()
        return latents.transpose(1, 2), notes

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


def held_positions(pipe: Any) -> int:
    return int(pipe.motion_adapter.config.motion_max_seq_length)


def check_steps(params: GenerationParams) -> None:
    """Video-to-video runs steps x strength steps, and fails obscurely when that is none."""
    steps = params.num_inference_steps or 1
    if params.conditioning == "init" and int(steps * params.strength) < 1:
        raise InputError(
            "out_of_range",
            f"numInferenceSteps {steps} times strength {params.strength:g} leaves no step to run.",
            [f"Set strength to at least {1 / steps:.2g}", f"Set numInferenceSteps to {int(1 / params.strength) + 1}"],
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
    cls = getattr(diffusers, own["class"]) if own else diffusers.EulerDiscreteScheduler
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **(own.get("config", {}) if own else SCHEDULER))


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
