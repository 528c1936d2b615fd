"""What a model family is: where its models are, what they take, how to load and call its diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vidkit.models.loading.components import Part
from vidkit.models.locate import Model
from vidkit.params import GenerationParams, Limits
from vidkit.pipelines.windows import Windows
from vidkit.settings import Settings

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: called after each denoising step; may raise to stop
OnStep = Callable[[], None]

#: the models of a request by parameter name: base_model, motion_adapter, controlnet
Models = Mapping[str, Model]


class Family(Protocol):
    """One model family. Importing and asking `models` and `limits` loads no torch.

    frame_axis: the frames' axis of the latents while its pipeline denoises.
    decoder_mixes_frames: frames that are decoded at once have a part in each other, so their number changes pixels.
    """

    frame_axis: int
    decoder_mixes_frames: bool

    def models(self, params: GenerationParams, settings: Settings) -> Models:
        """The models a request needs. Raises SetupError `model_not_found` or `invalid_model`."""

    def limits(self, params: GenerationParams, models: Models) -> Limits:
        """What these models narrow: defaults, ranges, size step."""

    def parts(self, params: GenerationParams, models: Models) -> Mapping[str, Part]:
        """The components that its pipeline is made of, by name. Those that requests share are loaded once."""

    def assemble(self, params: GenerationParams, models: Models, components: Mapping[str, Any]) -> Any:
        """The diffusers pipeline of loaded `parts`, which it shares with other pipelines; reads no weights.

        Raises:
            SetupError, and as torch and diffusers do it: they do not fit together.
        """

    def windows(self, params: GenerationParams, models: Models) -> Windows:
        """How a clip that is longer than the models hold is made. params: resolved."""

    def steps(self, pipe: Any, params: GenerationParams, models: Models) -> int:
        """How many denoising steps `denoise` takes for this request, in all its windows."""

    def denoise(
        self, pipe: Any, params: GenerationParams, models: Models, pictures: Sequence[Image.Image], on_step: OnStep
    ) -> tuple[torch.Tensor, list[str]]:
        """Call the real pipeline up to the latents `(1, frames, channels, height, width)`, and notes.

        params is resolved and its seed drawn; pictures are fitted: the first frame's, and the last frame's if given.
        """

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        """Latents of some frames `(1, frames, ...)` to float32 pixels `(frames, 3, height, width)` in [-1, 1]."""


def step_callback(
    on_step: OnStep, change: Callable[[int, torch.Tensor], torch.Tensor] | None = None
) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    """diffusers' `callback_on_step_end` for an `OnStep`. Raising from it is how a pipeline is stopped.

    change: from a step's number and its latents to those that the next step begins with.
    """

    def callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return tensors if change is None else {"latents": change(step, tensors["latents"])}

    return callback


def steps_of_a_call(pipe: Any, steps: int, strength: float = 1.0) -> int:
    """How many steps one call of the pipeline takes: strength leaves some out, and some schedulers add to them.

    As the `get_timesteps` of diffusers' pipelines. Setting the scheduler's steps here has no effect on the call, which
    sets them itself.
    """
    pipe.scheduler.set_timesteps(steps)
    left_out = steps - int(steps * strength)
    return len(pipe.scheduler.timesteps[left_out * pipe.scheduler.order :])


def size_multiple(*configs: Mapping[str, Any]) -> int:
    """Sizes in pixels must be multiples of this, at least of 8: each downsampling of the networks halves them."""
    levels = [config.get("block_out_channels") for config in configs]
    # a config without that list is refused when the model is loaded
    halvings = sum(max(len(channels) - 1, 0) for channels in levels if isinstance(channels, list))
    return max(8, 1 << halvings)
