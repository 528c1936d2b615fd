"""Layers that work frame by frame: convolutions, spatial resnets and attention, up- and downsamplers.

Each runs its own plain forward on slices of frames. Where the map that it reads is not needed any more, its result is
written there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from vidkit.pipelines.lean.maps import Changed, FeatureMap, Held, OnHost, as_map
from vidkit.pipelines.lean.slicing import Slicing, frame_bytes, frames_of, ranges

if TYPE_CHECKING:
    import torch


def plain(module: Any) -> Callable[..., Any]:
    """A module's forward as its class has it."""
    return partial(type(module).forward, module)


def by_frames(
    forward: Callable[..., Any], source: FeatureMap, slices: Iterator[tuple[int, int]], *arguments: Any, **options: Any
) -> torch.Tensor:
    """A frame-wise function of a map, slice by slice; the map is done with.

    slices: (start, stop) each. arguments, options: further ones of the function, sliced where they are by frame.
    """
    count = source.shape[0]

    def computed(start: int, stop: int) -> torch.Tensor:
        part: torch.Tensor = forward(
            source.frames(start, stop),
            *frames_of(arguments, start, stop, count),
            **{name: frames_of(value, start, stop, count) for name, value in options.items()},
        )
        return part

    start, stop = next(slices)
    whole = computed(start, stop)
    if stop < count:
        first, whole = whole, target(source, whole)
        whole[start:stop] = first
        del first
    for start, stop in slices:
        whole[start:stop] = computed(start, stop)
    source.done()
    return whole


def target(source: FeatureMap, part: torch.Tensor) -> torch.Tensor:
    shape = (source.shape[0], *part.shape[1:])
    spare = source.spare(shape)
    return part.new_empty(shape) if spare is None or spare.dtype != part.dtype else spare


def handed_on(tensor: torch.Tensor, slicing: Slicing, is_skip: bool) -> FeatureMap:
    """A layer's result for the next layer, and for one of the second half of the network if it is a skip connection."""
    if not is_skip:
        return Held(tensor)
    return OnHost(tensor) if slicing.host_skips else Held(tensor, readers=2)


def convolution(module: Any, slicing: Slicing, is_skip: bool, hidden: Any) -> FeatureMap:
    source = as_map(hidden)
    slices = slicing.ranges(source.shape[0], frame_bytes(source))
    return handed_on(by_frames(plain(module), source, slices), slicing, is_skip)


def last_convolution(module: Any, slicing: Slicing, is_skip: bool, hidden: Any) -> torch.Tensor:
    source = as_map(hidden)
    return by_frames(plain(module), source, slicing.ranges(source.shape[0], frame_bytes(source)))


def residual_convolution(module: Any, slicing: Slicing, is_skip: bool, hidden: Any) -> FeatureMap:
    """A ControlNet's, of whose results each waits for its layer of the UNet."""
    source = as_map(hidden)
    result = by_frames(plain(module), source, slicing.ranges(source.shape[0], frame_bytes(source)))
    return OnHost(result, readers=1) if slicing.host_skips else Held(result)


def when_read(module: Any, slicing: Slicing, is_skip: bool, hidden: Any) -> Any:
    """A norm or an activation before a convolution: computed when that reads it."""
    if isinstance(hidden, FeatureMap):
        return Changed(hidden, module, hidden.shape, hidden.dtype)
    return plain(module)(hidden)


def upsampler(module: Any, slicing: Slicing, is_skip: bool, hidden_states: Any, output_size: Any = None) -> Any:
    """Computed when the next layer reads it: the large map is never there as a whole."""
    if not isinstance(hidden_states, FeatureMap):
        return plain(module)(hidden_states, output_size)
    height, width = output_size or (2 * hidden_states.shape[2], 2 * hidden_states.shape[3])
    shape = (hidden_states.shape[0], module.out_channels, height, width)
    return Changed(hidden_states, partial(module, output_size=output_size), shape, hidden_states.dtype)


def downsampler(module: Any, slicing: Slicing, is_skip: bool, hidden_states: Any) -> FeatureMap:
    return convolution(module, slicing, is_skip, hidden_states)  # its callers name their argument


def resnet(module: Any, slicing: Slicing, is_skip: bool, input_tensor: Any, temb: Any = None) -> FeatureMap:
    source = as_map(input_tensor)
    slices = slicing.ranges(source.shape[0], frame_bytes(source))
    return handed_on(by_frames(plain(module), source, slices, temb), slicing, is_skip)


def transformer(
    module: Any, slicing: Slicing, is_skip: bool, hidden_states: Any, return_dict: bool = False, **options: Any
) -> tuple[FeatureMap]:
    def forward(hidden: torch.Tensor, **options: Any) -> Any:
        return plain(module)(hidden, **options, return_dict=False)[0]

    source = as_map(hidden_states)
    slices = slicing.transformer_ranges(source.shape[0], frame_bytes(source))
    return (handed_on(by_frames(forward, source, slices, **options), slicing, is_skip),)


def attention(module: Any, slicing: Slicing, is_skip: bool, hidden_states: Any) -> FeatureMap:
    """An autoencoder's, of few very wide heads: one frame at a time, as some attention kernels hold all weights."""
    source = as_map(hidden_states)
    count = source.shape[0]
    slices = ranges(count, 1, 1 if slicing.slice_bytes else None)
    return handed_on(by_frames(plain(module), source, slices), slicing, is_skip)
