"""AnimateDiff's UNet, put together from a base model's and a motion adapter's without copying either.

diffusers copies both into a third module, and keeps the adapter beside it. Here its layers hold the very weights of
the two: they are in memory once, another base or adapter is another arrangement of them, and each stays what it is.
"""

from __future__ import annotations

from typing import Any

from vidkit.models.loading.components import without_weights


def motion_unet(unet: Any, adapter: Any) -> Any:
    """A `UNetMotionModel` whose layers are the base's and whose motion modules are the adapter's.

    unet: a `UNet2DConditionModel`, or a `UNetMotionModel`, whose own motion modules are left out.
    adapter: a `MotionAdapter`; of input channels of its own (PIA's), those that the base has not are added to its.

    Raises:
        ValueError, RuntimeError: they do not fit together.
    """
    from diffusers import UNetMotionModel

    with without_weights():
        if type(unet).__name__ == "UNetMotionModel":
            whole = UNetMotionModel.from_config(unet.config, **settings_of(adapter))
        else:
            whole = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    weights = unet.state_dict(keep_vars=True) | adapter.state_dict(keep_vars=True)
    if adapter.config.conv_in_channels:
        weights["conv_in.weight"] = joined_input(unet, adapter)
        weights["conv_in.bias"] = unet.conv_in.bias
    expected = whole.state_dict()
    whole.load_state_dict({key: weight for key, weight in weights.items() if key in expected}, assign=True)
    return whole.eval()


def settings_of(adapter: Any) -> dict[str, Any]:
    """As `UNetMotionModel.from_unet2d` takes them."""
    config = adapter.config
    found = {
        "motion_num_attention_heads": config.motion_num_attention_heads,
        "motion_max_seq_length": config.motion_max_seq_length,
        "use_motion_mid_block": config.use_motion_mid_block,
        "layers_per_block": config.motion_layers_per_block,
        "temporal_transformer_layers_per_mid_block": config.motion_transformer_layers_per_mid_block,
        "temporal_transformer_layers_per_block": config.motion_transformer_layers_per_block,
    }
    return found | ({"in_channels": config.conv_in_channels} if config.conv_in_channels else {})


def joined_input(unet: Any, adapter: Any) -> Any:
    """PIA's input layer: the base's for the latents, its own for the picture and its mask."""
    import torch

    own = unet.conv_in.weight
    with torch.no_grad():
        return torch.nn.Parameter(torch.cat([own, adapter.conv_in.weight[:, own.shape[1] :]], 1))


def without_input(adapter: Any) -> Any:
    """The motion modules alone of a PIA adapter, which other modes than PIA's take."""
    import diffusers

    if not adapter.config.conv_in_channels:
        return adapter
    with without_weights():
        modules = diffusers.MotionAdapter.from_config(adapter.config, conv_in_channels=None)
    weights = adapter.state_dict(keep_vars=True)
    modules.load_state_dict({key: weights[key] for key in modules.state_dict()}, assign=True)
    return modules.eval()
