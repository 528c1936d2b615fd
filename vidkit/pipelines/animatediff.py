"""AnimateDiff: a Stable Diffusion 1.5 model and a motion adapter, conditioned on a picture and on text.

diffusers' AnimateDiffPipeline takes no picture, so each conditioning mode is another of its pipelines:
init: AnimateDiffVideoToVideoPipeline over the picture repeated, with a strength; sparsectrl:
AnimateDiffSparseControlNetPipeline, the picture as first (and another as last) frame; pia: PIAPipeline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import InputError, Remedy, SetupError
from vidkit.models.compatibility import why_not_together
from vidkit.models.files.config_files import invalid_config
from vidkit.models.inspection import inspect
from vidkit.models.loading.components import Part
from vidkit.models.loading.single_file import check_sd15_checkpoint
from vidkit.models.locate import CARD_FILE, Model, locate, locate_base
from vidkit.models.loras import locate_loras
from vidkit.params import GenerationParams, Limits, bounds_of
from vidkit.pipelines.family import Models, OnStep, size_multiple, step_callback, steps_of_a_call
from vidkit.pipelines.motion_unet import motion_unet, without_input
from vidkit.pipelines.prompts import encode_prompts
from vidkit.pipelines.schedulers import scheduler
from vidkit.pipelines.still_video import encoded_picture, first_timestep, still_video
from vidkit.pipelines.windows import Windows, windows
from vidkit.settings import Settings

if TYPE_CHECKING:
    import torch
    from PIL import Image

BASE_KINDS: Final = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "AnimateDiffPipeline",
    "AnimateDiffVideoToVideoPipeline",
)
BASE_PARTS: Final = ("unet", "vae", "text_encoder", "tokenizer")

IGNORED: Final = {"motion_bucket_id": "AnimateDiff's motion comes from the prompt and the motion adapter"}

#: as in the original specification; what a motion adapter was trained with is linear too
SCHEDULER: Final = {"timestep_spacing": "trailing", "beta_schedule": "linear"}

MAX_STEPS: Final = bounds_of(GenerationParams.model_fields["num_inference_steps"])["le"]


class AnimateDiff:
    """The conditioning modes share everything but the pipeline class and the way the picture is handed over."""

    frame_axis = 2
    decoder_mixes_frames = False

    def models(self, params: GenerationParams, settings: Settings) -> Models:
        base = locate_base(params, settings, BASE_KINDS, bundled="bundled:tiny-animatediff")
        if base.path.is_file():
            check_sd15_checkpoint(base.path)  # by its header, before gigabytes are hashed
        bundled = "bundled:tiny-motion-adapter" if base.is_bundled else None  # which fits no other base
        adapter = part(params, settings, "motion_adapter", "MotionAdapter", bundled)
        found = {"base_model": base, "motion_adapter": adapter}
        if params.conditioning == "sparsectrl":
            found["controlnet"] = part(params, settings, "controlnet", "SparseControlNetModel")
        check_adapter(adapter, params)
        check_together(found)
        return found | locate_loras(params, settings, base, adapter)

    def limits(self, params: GenerationParams, models: Models) -> Limits:
        base, adapter = models["base_model"], models["motion_adapter"]
        defaults = {"width": 512, "height": 512, "num_frames": 16, "num_inference_steps": 25} | base.card_defaults()
        defaults |= adapter.card_defaults()  # one that was made for a few steps needs its own, whatever the base
        check_steps(params, params.num_inference_steps or defaults["num_inference_steps"])
        frames = params.num_frames or defaults["num_frames"]
        check_last_picture(params, self.windows(params.replace(num_frames=frames), models))
        return Limits(
            model=base.name,
            defaults=defaults,
            ranges=base.card_ranges() | {"window_frames": (2, held_frames(shortest_of(models)))},
            # unlike SVD's, this UNet takes latents of any size
            size_multiple=size_multiple(base.config("vae")),
            ignored=IGNORED,
        )

    def parts(self, params: GenerationParams, models: Models) -> Mapping[str, Part]:
        found = {name: Part(models["base_model"], name) for name in BASE_PARTS}
        return found | {name: Part(models[name]) for name in ("motion_adapter", "controlnet") if name in models}

    def assemble(self, params: GenerationParams, models: Models, components: Mapping[str, Any]) -> Any:
        # only PIAPipeline feeds the input channels that a PIA adapter has beside its motion modules
        adapter = components["motion_adapter"]
        adapter = adapter if params.conditioning == "pia" else without_input(adapter)
        unet = motion_unet(components["unet"], adapter)
        return pipeline_class(params)(
            **{**components, "unet": unet, "motion_adapter": adapter},
            scheduler=scheduler(
                models["base_model"], carded(models), {"class": "EulerDiscreteScheduler", "config": SCHEDULER}
            ),
        )

    def windows(self, params: GenerationParams, models: Models) -> Windows:
        """Of as many frames as its motion modules have positions for, or of fewer where asked for."""
        shortest = shortest_of(models)
        return windows(params, held_frames(shortest), shortest.name)

    def steps(self, pipe: Any, params: GenerationParams, models: Models) -> int:
        strength = params.strength if params.conditioning == "init" else 1.0
        return self.windows(params, models).calls * steps_of_a_call(pipe, params.num_inference_steps or 1, strength)

    def denoise(
        self, pipe: Any, params: GenerationParams, models: Models, pictures: Sequence[Image.Image], on_step: OnStep
    ) -> tuple[torch.Tensor, list[str]]:
        import torch

        # first, so that a GPU encodes it while the host goes through the text encoder's layers
        first = encoded_picture(pipe, pictures[0], params) if params.conditioning == "init" else None
        is_exact = params.speed == "exact"
        prompt, negative, notes = encode_prompts(pipe, params.prompt, params.negative_prompt, at_once=not is_exact)

        def one_pass(pictures: Sequence[Image.Image], frames: int, before: torch.Tensor | None) -> torch.Tensor:
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
                **{
                    "callback_on_step_end": step_callback(on_step),
                    **picture_arguments(pipe, params, list(pictures), first, frames, before, on_step),
                },
            ).frames
            return latents.transpose(1, 2)

        found = self.windows(params, models)
        return found.clip(one_pass, partial(self.decode, pipe), pictures), [*notes, *found.notes]

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = pipe.decode_latents(latents.transpose(1, 2))
        return pixels[0].transpose(0, 1)


def part(params: GenerationParams, settings: Settings, name: str, kind: str, bundled: str | None = None) -> Model:
    """A model beside the base: the motion adapter, the SparseCtrl model. bundled: the one to use when none is named."""
    wanted, role = getattr(params, name) or bundled, name.replace("_", " ")
    if wanted is None:
        key = "motionAdapter" if name == "motion_adapter" else name
        raise SetupError(
            "model_not_found",
            f"animatediff with conditioning {params.conditioning} needs a {role}, and the request names none.",
            [
                f"Set {key} to the folder of a {kind}",
                Remedy("Use pipeline svd, which needs no other model", pipeline="svd"),
            ],
            [name],
        )
    return locate(wanted, settings, [kind], role)


def check_adapter(adapter: Model, params: GenerationParams) -> None:
    """A PIA adapter has nine input channels of its own, which the pia mode needs.

    It is made for that mode alone, unless its card says that its motion modules serve others too.
    """
    is_pia = adapter.config().get("conv_in_channels") is not None
    served = adapter.card.get("conditionings", ["pia"] if is_pia else ["init", "sparsectrl"])
    if "pia" in served and not is_pia:
        raise invalid_config(adapter.path / CARD_FILE, "conditionings has pia, but the adapter no conv_in_channels")
    if params.conditioning not in served:
        what = "a PIA adapter" if is_pia else "a plain motion adapter"
        raise SetupError(
            "invalid_model",
            f"{adapter.name} is {what}; it does not work with conditioning {params.conditioning}.",
            [
                *(Remedy(f"Set conditioning to {mode}", conditioning=mode) for mode in served),
                "Choose another motion adapter",
            ],
            ["conditioning", "motion_adapter"],
        )


def check_together(models: Models) -> None:
    """Motion modules are made for one shape of UNet; by headers and configs, before gigabytes are hashed."""
    base = inspect(models["base_model"].path)
    for name in ("motion_adapter", "controlnet"):
        reason = why_not_together(inspect(models[name].path), base) if name in models else None
        if reason is not None:
            raise SetupError(
                "invalid_model",
                f"{models[name].name} does not go with {models['base_model'].name}: {reason}",
                [f"Choose another {name.replace('_', ' ')}", "Choose another base model"],
                [name, "base_model"],
            )


def shortest_of(models: Models) -> Model:
    """Of the motion adapter and the SparseCtrl model, the one that holds fewer frames at once."""
    return min((models[name] for name in ("motion_adapter", "controlnet") if name in models), key=held_frames)


def held_frames(model: Model) -> int:
    """32 for all published motion adapters and SparseCtrl models."""
    frames = model.config().get("motion_max_seq_length", 32)
    if type(frames) is not int or frames < 2:
        reason = f"motion_max_seq_length is {frames!r}, not a whole number of at least 2"
        raise invalid_config(model.path / "config.json", reason)
    return frames


def check_last_picture(params: GenerationParams, found: Windows) -> None:
    """SparseCtrl leads to a last frame only within one pass: the windows before the last would not know of it."""
    if params.conditioning != "sparsectrl" or params.last_image_path is None or found.count == 1:
        return
    raise InputError(
        "out_of_range",
        f"numFrames is {found.frames}; with lastImagePath the clip is made in one pass, of no more than the "
        f"{found.held} frames {found.limit}.",
        [
            Remedy(f"Set numFrames to {found.held}", num_frames=found.held),
            Remedy("Leave lastImagePath out: longer clips are then made in sliding windows", last_image_path=None),
        ],
        ["num_frames", "last_image_path"],
    )


def check_steps(params: GenerationParams, steps: int) -> None:
    """Video-to-video runs steps x strength steps, and fails obscurely when that is none."""
    if params.conditioning != "init" or int(steps * params.strength) >= 1:
        return
    least = math.ceil(100 / steps) / 100
    suggestions = [Remedy(f"Set strength to at least {least:g}", strength=least)]
    if (enough := math.ceil(1 / params.strength) + 1) <= MAX_STEPS:
        suggestions.append(Remedy(f"Set numInferenceSteps to {enough}", num_inference_steps=enough))
    raise InputError(
        "out_of_range",
        f"numInferenceSteps {steps} times strength {params.strength:g} leaves no step to run.",
        suggestions,
        ["num_inference_steps", "strength"],
    )


def pipeline_class(params: GenerationParams) -> Any:
    import diffusers

    names = {
        "init": "AnimateDiffVideoToVideoPipeline",
        "sparsectrl": "AnimateDiffSparseControlNetPipeline",
        "pia": "PIAPipeline",
    }
    return getattr(diffusers, names[params.conditioning])


def carded(models: Models) -> Model:
    """Whose card names the scheduler, if any does: the adapter's goes before the base model's."""
    base, adapter = models["base_model"], models["motion_adapter"]
    return adapter if "scheduler" in adapter.card else base


def picture_arguments(
    pipe: Any,
    params: GenerationParams,
    pictures: list[Image.Image],
    first: Any,
    frames: int,
    before: torch.Tensor | None,
    on_step: OnStep,
) -> dict[str, Any]:
    """How each conditioning mode's pipeline is handed the pictures, and how many frames to make.

    first: with init, the first window's picture as it is encoded. before: latents of the first frames, where the window
    before made them too. PIA and SparseCtrl go on from their picture as it is; with init each window changes it, so it
    is led by them.
    """
    if params.conditioning == "init":
        encoded = first if before is None else encoded_picture(pipe, pictures[0], params)
        video = still_video(pipe, encoded, params, frames, before)
        return {
            "latents": video.noised(pipe.scheduler, first_timestep(pipe, params)),
            "strength": params.strength,
            "callback_on_step_end": step_callback(on_step, partial(video.kept, pipe)),
        }
    if params.conditioning == "sparsectrl":
        return {
            "num_frames": frames,
            "conditioning_frames": pictures,
            "controlnet_frame_indices": [0, frames - 1][: len(pictures)],
            "controlnet_conditioning_scale": params.conditioning_scale,
        }
    return {"num_frames": frames, "image": pictures[0], "motion_scale": params.motion_scale}
