"""How much a request may take of this machine: time, device memory, frames, size, disk. Set by its user, not by models.

Each limit is a key of `limits` in config.json, or the environment variable of its name (`VIDKIT_LIMIT_TIME`), which
comes first. 0 is no limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field

from vidkit.errors import InputError, Remedy
from vidkit.files import disk_full, free_disk_bytes, in_words
from vidkit.params import GenerationParams
from vidkit.settings_schema import Part, PlainNumber, entries, setting

#: seconds: the specification's
TIME: Final = 600.0

#: GiB that stay free: a disk filled to the brim breaks everything else that runs
SPARE_DISK: Final = 0.25

#: bytes for each pixel of each frame that a clip's file may take: measured on pure noise, the worst there is, 1.38 as a
#: GIF, 0.89 as an MP4, 0.81 as a WebM
CLIP_BYTES: Final = 1.5

#: bytes for each pixel of a fitted picture, kept losslessly: twice as PNG (3.0, on noise), beside the clip and in it
PICTURE_BYTES: Final = 6.5


#: 0 is no limit
Amount = Annotated[Annotated[float, Field(ge=0)] | None, PlainNumber, AfterValidator(lambda value: value or None)]
Count = Annotated[Annotated[int, Field(ge=0)] | None, PlainNumber, AfterValidator(lambda value: value or None)]


class ResourceLimits(Part):
    """None: no limit. A request over the limit of frames, pixels or disk is refused before anything is loaded."""

    model_config = ConfigDict(extra="forbid")  # a limit that was mistyped would not hold, and nobody would notice

    time: Amount = setting(
        TIME, "Seconds that a clip may be computed; waiting for the device does not count.", "VIDKIT_LIMIT_TIME"
    )
    memory: Amount = setting(
        None,
        "GiB that a request may take where it computes, of the GPU's memory or the host's; plans fit into it.",
        "VIDKIT_LIMIT_MEMORY",
    )
    frames: Count = setting(None, "Frames of a clip.", "VIDKIT_LIMIT_FRAMES")
    pixels: Count = setting(None, "Pixels of a frame, width times height.", "VIDKIT_LIMIT_PIXELS")
    disk: Amount = setting(SPARE_DISK, "GiB that stay free beside the clip.", "VIDKIT_LIMIT_DISK")

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else round(self.memory * 2**30)

    def of_memory(self, free: int | None) -> int | None:
        """Bytes of device memory that a request may take, of those that are free; None: nobody knows."""
        known = [bytes_ for bytes_ in (free, self.memory_bytes) if bytes_ is not None]
        return min(known) if known else None


def check_request(params: GenerationParams, limits: ResourceLimits) -> None:
    """Frames and size of a resolved request.

    Raises:
        InputError: `over_limit`.
    """
    frames, width, height = params.num_frames or 0, params.width or 0, params.height or 0
    if limits.frames is not None and frames > limits.frames:
        raise over_limit(
            f"numFrames is {frames}, and this machine's limit is {limits.frames}.",
            "frames",
            [Remedy(f"Set numFrames to {limits.frames}", num_frames=limits.frames)] if limits.frames > 1 else [],
            ["num_frames"],
        )
    if limits.pixels is not None and width * height > limits.pixels:
        raise over_limit(
            f"{width}x{height} are {width * height:,} pixels, and this machine's limit is {limits.pixels:,}.",
            "pixels",
            smaller_sizes(width, height, limits.pixels),
            ["width", "height"],
        )


def over_limit(message: str, name: str, remedies: Sequence[str], concerns: Sequence[str]) -> InputError:
    return InputError("over_limit", message, [*remedies, how_to_raise(name)], concerns)


def how_to_raise(name: str) -> str:
    return f"Raise the limit: {how_to_set(name)}"


def how_to_set(name: str) -> str:
    variables = {entry.key: entry.variable for entry in entries(ResourceLimits)}
    return f"{variables[name]}, or vidkit config limits.{name} VALUE (0 is no limit)"


def smaller_sizes(width: int, height: int, pixels: float, multiple: int = 64) -> list[str]:
    """The largest size of about the same shape that has at most so many pixels; nothing where there is none."""
    scale = (pixels / (width * height)) ** 0.5
    smaller = [int(side * scale) // multiple * multiple for side in (width, height)]
    if min(smaller) < multiple:
        return []
    return [Remedy(f"Reduce the size to {smaller[0]}x{smaller[1]}", width=smaller[0], height=smaller[1])]


def disk_needed(params: GenerationParams, pictures: int = 1) -> int:
    """Bytes that a resolved request's clip, its sidecar and its pictures take at most, while they are written."""
    pixels = (params.width or 0) * (params.height or 0)
    return round(pixels * ((params.num_frames or 0) * CLIP_BYTES + pictures * PICTURE_BYTES))


def frames_within(room: int, params: GenerationParams, pictures: int = 1) -> int:
    """How many frames of the request's size take at most `room` bytes on the disk, with the pictures; 0 for none."""
    pixels = (params.width or 0) * (params.height or 0)
    return max(0, int((room / pixels - pictures * PICTURE_BYTES) / CLIP_BYTES)) if pixels else 0


def check_disk(params: GenerationParams, target: Path, limits: ResourceLimits, pictures: int = 1) -> None:
    """Whether the clip finds room where it will stand.

    Raises:
        CriticalError: `disk_full`.
    """
    needed, free = disk_needed(params, pictures), free_disk_bytes(target.parent)
    spare = round((limits.disk or 0) * 2**30)
    if needed + spare <= free:
        return
    error = disk_full(
        f"The clip may take {in_words(needed)}, and {in_words(spare)} are to stay free, but only {in_words(free)} are "
        f"free in {target.parent}.",
        target,
        needed + spare,
        is_output=True,
    )
    fewer = frames_within(free - spare, params, pictures)
    if fewer > 1:
        error.suggestions.append(Remedy(f"Set numFrames to {fewer}", num_frames=fewer))
    if needed <= free:
        error.suggestions.append(f"Let less stay free: {how_to_set('disk')}")
    raise error
