"""The keys and shapes of a checkpoint, without what savers wrap around them, to be asked by patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from vidkit.models.files.safetensors_header import Header

#: what savers put before the keys: Lightning's and AnimateDiff's pickles ("state_dict", "controlnet"), data-parallel
#: training ("module"), torch.compile, peft
_WRAPPERS: Final = re.compile(r"(?:(?:state_dict|module|_orig_mod|base_model\.model|controlnet)\.)+")
#: no layer's name is longer; patterns are only tried on what can be one, so that hostile keys cost no time
_LONGEST_KEY: Final = 512
_EMA: Final = re.compile(r"model_ema\.|ema\.|.*\.ema_model\.")

Shape = tuple[int, ...]


class Keys:
    """shapes: of the model's own tensors, by key without wrappers. header: the same tensors as the file names them.

    Left out are what a training run keeps beside its weights (optimizer states), and averaged copies (EMA), of which
    `ema` tells.
    """

    def __init__(self, header: Header) -> None:
        in_state = any(key.startswith("state_dict.") for key in header)
        own = {key: entry for key, entry in header.items() if key.startswith("state_dict.") or not in_state}
        named = {bare(key): entry for key, entry in own.items() if len(key) <= _LONGEST_KEY}
        averaged = {key for key in named if _EMA.match(key)}
        self.ema = bool(averaged) and len(averaged) < len(named)
        left_out = averaged if self.ema else set()
        self.header: Header = {key: entry for key, entry in named.items() if key not in left_out}
        self.shapes: dict[str, Shape] = {key: shape for key, (_, shape) in self.header.items()}
        self._text = "\n".join(self.shapes)

    def has(self, pattern: str) -> bool:
        """Whether a key matches; ^ and $ are its ends."""
        return re.search(pattern, self._text, re.MULTILINE) is not None

    def matching(self, pattern: str) -> Iterator[tuple[re.Match[str], Shape]]:
        compiled = re.compile(pattern)
        for key, shape in self.shapes.items():
            if match := compiled.search(key):
                yield match, shape

    def shape(self, pattern: str) -> Shape | None:
        """Of the first key that matches."""
        return next((shape for _, shape in self.matching(pattern)), None)

    def width(self, pattern: str, axis: int) -> int | None:
        """One size of the first matching tensor that has such an axis."""
        shapes = (shape for _, shape in self.matching(pattern))
        return next((shape[axis] for shape in shapes if -len(shape) <= axis < len(shape)), None)

    def numbers(self, pattern: str) -> set[int]:
        """Those that the pattern's group matches, as of blocks."""
        return {int(number) for number in re.findall(pattern, self._text, re.MULTILINE)}

    def levels(self, pattern: str, axis: int = 0) -> dict[int, int]:
        """Channels by level: the pattern's group is the level, `axis` of the tensor has the channels."""
        found: dict[int, int] = {}
        for match, shape in self.matching(pattern):
            if -len(shape) <= axis < len(shape):
                found.setdefault(int(match[1]), shape[axis])
        return dict(sorted(found.items()))


def bare(key: str) -> str:
    wrapped = _WRAPPERS.match(key)
    return key[wrapped.end() :] if wrapped else key


def all_levels(channels: dict[int, int]) -> Shape:
    """As diffusers' `block_out_channels`; () when a level is not told."""
    return tuple(channels.values()) if list(channels) == list(range(len(channels))) else ()
