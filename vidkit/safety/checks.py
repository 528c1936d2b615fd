"""A request's pictures and its clip under the eyes of the checker: all is well, or a typed error and no clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from vidkit.errors import GenerationError, InputError
from vidkit.progress import Reporter
from vidkit.safety.checker import WarmChecker, checker_hash
from vidkit.safety.screening import Screening
from vidkit.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

#: the parameters of a request's pictures, in their order
PICTURES: Final = ("image_path", "last_image_path")

#: numbers of frames that an error names
NAMED: Final = 12

TURN_OFF: Final = (
    "The checker is wrong at times. If you are of full age, and those shown consent: vidkit acknowledge, then "
    "vidkit config safety.checker off"
)


def identified(screening: Screening, settings: Settings, check: Callable[[], None]) -> Screening:
    """With the checker's hash. check: called while it is read the first time; may raise to stop.

    Raises:
        SetupError: `invalid_model`, for a checker that is not there, or cannot be read.
    """
    if screening.checker is None:
        return screening
    return replace(screening, sha256=checker_hash(screening.checker, settings, check))


def check_pictures(
    warm: WarmChecker, screening: Screening, pictures: Sequence[Image.Image], reporter: Reporter
) -> None:
    """Look at the input pictures, as the model gets them, before anything is computed.

    Raises:
        InputError: `unsafe_image`. SetupError: `invalid_model`, when the checker does not load. Cancelled.
    """
    if screening.checker is None or screening.sha256 is None:
        return
    reporter.tell(3, "Checking that the picture is safe...")
    checker = warm.of(screening.checker, screening.sha256)
    unsafe = checker.flagged([np.asarray(picture) for picture in pictures], lambda done: reporter.check())
    if unsafe:
        which = "last picture" if unsafe == [1] else "picture"
        raise InputError(
            "unsafe_image",
            f"The safety checker takes the {which} for adult content; nothing was computed.",
            ["Choose another picture", TURN_OFF],
            [PICTURES[number] for number in unsafe],
        )


def check_clip(warm: WarmChecker, screening: Screening, frames: npt.NDArray[np.uint8], reporter: Reporter) -> bool:
    """Look at a clip's frames `(frames, height, width, 3)`, all of them. Whether they were looked at.

    Raises:
        GenerationError: `unsafe_output`, which names the frames. Cancelled. SetupError: as `check_pictures`.
    """
    if screening.checker is None or screening.sha256 is None:
        return False
    checker = warm.of(screening.checker, screening.sha256)

    def told(done: int) -> None:
        reporter.waiting(f"Checking that the frames are safe: {done} of {len(frames)}...")

    told(0)
    unsafe = checker.flagged(list(frames), told)
    if unsafe:
        raise GenerationError(
            "unsafe_output",
            f"The safety checker takes {in_words(unsafe, len(frames))} for adult content; nothing was written.",
            ["Try another seed, prompt or picture", TURN_OFF],
        )
    return True


def in_words(numbers: Sequence[int], count: int) -> str:
    """Frames, counted from 1."""
    if len(numbers) == count:
        return f"all {count} frames"
    some = ", ".join(str(number + 1) for number in numbers[:NAMED])
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{'frame' if len(numbers) == 1 else 'frames'} {some}{more} of {count}"
