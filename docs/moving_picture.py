"""Makes docs/clips.webp: what the bundled models make of the example photograph, moving.

python docs/moving_picture.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vidkit
from vidkit.video import read_frames

TARGET: Final = Path(__file__).with_name("clips.webp")
SIDE, CAPTION, GAP, FPS = 240, 26, 8, 8

#: caption -> request
CLIPS: Final[dict[str, dict[str, Any]]] = {
    "svd, seed 7": {"seed": 7, "motion_bucket_id": 127},
    "svd, seed 2": {"seed": 2, "motion_bucket_id": 127},
    "“slow zoom in”": {"pipeline": "animatediff", "conditioning": "pia", "prompt": "slow zoom in", "seed": 1},
    "“pan left”": {"pipeline": "animatediff", "conditioning": "pia", "prompt": "pan left", "seed": 1},
}


def main() -> None:
    strips = []
    with tempfile.TemporaryDirectory() as folder:
        for number, request in enumerate(CLIPS.values()):
            target = Path(folder) / f"{number}.mp4"
            given = {"image_path": "example:photo", "prompt": "slow camera move", "num_frames": 14}
            vidkit.generate({**given, **request, "output_path": str(target)})
            strips.append(read_frames(target))
    there = [page(frames) for frames in zip(*strips, strict=True)]
    frames = [*there, *reversed(there[1:-1])]  # and back, so that it plays without a jump
    frames[0].save(
        TARGET, save_all=True, append_images=frames[1:], duration=round(1000 / FPS), loop=0, quality=70, method=6
    )
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


def page(frames: tuple[Any, ...]) -> Image.Image:
    """One moment of all clips side by side, with their captions."""
    picture = Image.new("RGB", (len(frames) * (SIDE + GAP) - GAP, SIDE + CAPTION), "white")
    draw = ImageDraw.Draw(picture)
    for number, (caption, frame) in enumerate(zip(CLIPS, frames, strict=True)):
        left = number * (SIDE + GAP)
        picture.paste(Image.fromarray(np.asarray(frame)).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, 0))
        middle = (left + SIDE / 2, SIDE + CAPTION / 2)
        draw.text(middle, caption, fill="#333", anchor="mm", font=ImageFont.load_default(14))
    return picture


if __name__ == "__main__":
    main()
