"""Exact execution in little memory: the video UNets, SparseCtrl and the temporal decoder, layer by layer in slices.

diffusers' pipelines, networks and blocks stay as they are; layers get other forwards (`installing`), which give what
their own give up to rounding, and pass each other `maps` in place of tensors. What is whole on the device at a time:

- a layer that works frame by frame (`layers`): its input, and its result unless that fits into the input's place;
- a temporal resnet (`temporal`): its input, into which it writes, and as much again;
- SVD's transformer: its input, into which it writes, and one inner map; AnimateDiff's, and motion modules: their input;
- an upsampler: its input alone, as the next layer computes of it what it reads;
- the skip connections that are still to be read, unless they wait in the host's memory (`host`).

Beside that: what one slice takes within its layer.
"""

from vidkit.pipelines.lean.installing import install, remove
from vidkit.pipelines.lean.slicing import SLICE_BYTES

__all__ = ["SLICE_BYTES", "install", "remove"]
