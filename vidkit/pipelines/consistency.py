"""Sampling with consistency models that were distilled from Stable Video Diffusion (AnimateLCM-SVD)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_consistency_models import (
    CMStochasticIterativeScheduler,
    CMStochasticIterativeSchedulerOutput,
)


class VideoConsistencyScheduler(CMStochasticIterativeScheduler):
    """diffusers' sampler for consistency models, for networks that tell as Stable Video Diffusion does.

    A step takes its sample to the end at once, and noise of the next level is put on. The network predicts v (Karras et
    al. 2022, arXiv 2206.00364, with the signs of Salimans and Ho 2022), and is told a quarter of the noise's logarithm.
    The defaults are those that AnimateLCM-SVD was distilled with (huggingface.co/spaces/wangfuyun/AnimateLCM-SVD).
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 40,
        sigma_min: float = 0.002,
        sigma_max: float = 700.0,
        sigma_data: float = 1.0,
        s_noise: float = 1.0,
        rho: float = 7.0,
        clip_denoised: bool = False,
    ) -> None:
        super().__init__(num_train_timesteps, sigma_min, sigma_max, sigma_data, s_noise, rho, clip_denoised)
        self.init_noise_sigma = (sigma_max**2 + 1) ** 0.5

    def sigma_to_t(self, sigmas: float | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        timesteps: npt.NDArray[np.float64] = super().sigma_to_t(sigmas) / 1000
        return timesteps

    def get_scalings_for_boundary_condition(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skip, out = self.get_scalings(sigma)
        return skip, -out

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        """As diffusers', in single precision. SVD's pipeline gives no generator: the CPU's own then draws the noise,
        which is the same for every device.
        """
        chosen = generator or torch.default_generator
        stepped = super().step(model_output.float(), timestep, sample.float(), chosen, return_dict=False)[0]
        stepped = stepped.to(model_output.dtype)
        return CMStochasticIterativeSchedulerOutput(stepped) if return_dict else (stepped,)
