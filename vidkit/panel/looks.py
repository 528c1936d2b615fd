"""The live preview as a small animation that any front end shows."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: frames and pixels (longer side) at most: enough to judge the motion, and made in some milliseconds
FRAMES: Final = 16
SIDE: Final = 192


def animated(frames: npt.NDArray[np.uint8], fps: int) -> bytes:
    """A looped WebP. frames: `(frames, height, width, 3)` uint8, of which every n-th is taken; fps: of all of them."""
    stride = -(-len(frames) // FRAMES)
    pictures = [Image.fromarray(frame) for frame in frames[::stride]]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    options: dict[str, Any] = {"quality": 60, "method": 0, "loop": 0, "duration": round(1000 * stride / fps)}
    pictures[0].save(data, "WEBP", save_all=True, append_images=pictures[1:], **options)
    return data.getvalue()
