"""The prompts that are tried: each move alone and within sentences, and prompts that ask for no move."""

from __future__ import annotations

from benchmarks.motion import STATIC

#: prompt -> the move that `benchmarks.motion` measures when it is obeyed
ASKED = {
    **{
        move: move
        for move in ("zoom in", "zoom out", "pan left", "pan right", "tilt up", "tilt down", "rotate clockwise")
    },
    "static shot": STATIC,
}
#: the first is the specification's example
SENTENCES = (
    "slow cinematic {}, woman turning head slowly, wind blowing through hair, golden hour lighting, dreamy atmosphere, "
    "film grain",
    "a lighthouse above the surf at dusk, {}, long exposure, muted colours",
    "{}, fishermen mending nets on a quay, morning mist, 35mm photograph",
    "close portrait of an old violinist in a red scarf, soft window light, smooth {}, 85mm lens",
    "a market square full of tulips; {}; crisp, overcast day",
    "Gentle {} over a steam locomotive at the platform, heavy snowfall, moody, highly detailed",
)
#: no word of a camera
UNRELATED = (
    "a bowl of soup on a wooden table",
    "two foxes asleep under an oak",
    "a violin concerto in an empty hall",
    "rain",
)


def asked_move(prompt: str) -> str:
    """The move, as `benchmarks.motion` names it, that a prompt with one of ASKED in it asks for."""
    return next(move for words, move in ASKED.items() if words in prompt)
