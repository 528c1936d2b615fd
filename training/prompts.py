"""Training prompts: ways to ask for each camera move, inside sentences about anything.

A prompt that asks for no move gets the default move: a slow zoom in, the oldest way to make a still picture live.
"""

from __future__ import annotations

import random

#: the moves that words can choose, by what the viewer sees: "pan left" is the camera turning left
MOVES = (
    "zoom in",
    "zoom out",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "rotate clockwise",
    "rotate counterclockwise",
    "static shot",
)
NO_MOVE = len(MOVES)  # the class of prompts that ask for none

_VERBS = {
    "zoom": ("zoom", "zooming", "zooms", "zoomed"),
    "pan": ("pan", "panning", "pans"),
    "tilt": ("tilt", "tilting", "tilts"),
    "rotate": ("rotate", "rotating", "rotates", "rotation", "spin", "spinning", "turning", "roll", "rolling"),
}
_HOW = ("", "", "", "slow", "slowly", "gentle", "gently", "smooth", "smoothly", "steady", "fast", "slow cinematic",
    "dramatic", "subtle", "quick", "very slow", "camera", "the camera", "the camera slowly")  # fmt: skip
_SUBJECTS = (
    "woman turning head slowly", "a man walking through a city street", "wind blowing through hair", "ocean waves",
    "a cat looking out of the window", "mountain landscape", "an old house by the lake", "portrait of a young girl",
    "a red car on a country road", "flowers in a garden", "clouds moving over the hills", "a castle on a cliff",
    "a cup of coffee on a wooden table", "birds in the sky", "forest with tall trees", "rocket launch", "a dog running",
    "fireworks over the harbour", "city skyline at night", "snow falling", "leaves rustling in the wind", "a river",
    "an astronaut in a space suit", "a bowl of soup", "people dancing in a hall", "a train in the distance",
    "the left hand of the statue", "a bird on the right", "looking up at the sky", "a road going down the hill",
    "a lamp in the background", "a boat out at sea", "in the middle of the room", "children playing", "a robot",
    "an empty street after rain", "a field of wheat", "the moon and stars", "a horse in the meadow", "a motorcycle",
    "a person smiling and blinking", "smoke rising", "candle light flickering", "a waterfall in the jungle", "a ship",
)  # fmt: skip
_STYLES = (
    "golden hour lighting", "dreamy atmosphere", "film grain", "cinematic", "highly detailed", "soft light", "4k",
    "realistic", "shallow depth of field", "at sunset", "in the morning", "dramatic lighting", "vintage", "masterpiece",
    "best quality", "foggy", "warm colours", "black and white", "bokeh", "studio light", "neon lights", "watercolor",
    "moody", "high contrast", "pastel colors", "wide angle", "close-up", "handheld", "documentary style", "8k uhd",
    "blurry", "low quality", "worst quality", "deformed", "watermark", "beautiful", "photo", "sharp focus", "anime",
)  # fmt: skip


def ask(move: int, draw: random.Random) -> str:
    """One way to ask for a move."""

    def verb(name: str) -> str:
        return draw.choice(_VERBS[name])

    side = {2: "left", 3: "right", 4: "up", 5: "down"}.get(move, "")
    ways: list[str]
    if move in (0, 1):
        toward = move == 0
        ways = [f"{verb('zoom')} {'in' if toward else 'out'}"] * 5
        ways += (
            [
                f"{verb('zoom')} into the scene",
                "push in",
                "dolly in",
                "camera moves closer",
                "zoom-in",
                "moving forward",
            ]
            if toward
            else ["pull back", "pull out", "dolly out", "camera moves away", "zoom-out", "moving backward"]
        )
    elif move in (2, 3):
        ways = [f"{verb('pan')} {side}"] * 4
        ways += [f"{verb('pan')} to the {side}", f"{verb('pan')} towards the {side}", f"camera moves {side}",
                 f"{side} pan", f"pan-{side}", f"truck {side}"]  # fmt: skip
    elif move in (4, 5):
        ways = [f"{verb('tilt')} {side}"] * 4
        ways += [f"{verb('tilt')} {side}ward", f"{verb('tilt')} {side}wards", f"camera moves {side}",
                 f"tilt-{side}", f"pan {side}", f"camera looks {side}"]  # fmt: skip
    elif move in (6, 7):
        spellings = ("clockwise",) if move == 6 else ("counterclockwise", "counter-clockwise", "anticlockwise")
        way = draw.choice(spellings)
        ways = [f"{verb('rotate')} {way}"] * 4 + [f"{way} {verb('rotate')}", f"camera roll {way}", f"turn {way}"]
    else:
        ways = ["static shot"] * 4 + ["static camera", "still shot", "locked-off shot", "no camera movement",
                "static", "fixed camera", "tripod shot", "the camera does not move", "motionless"]  # fmt: skip
    text = draw.choice(ways)
    return f"{draw.choice(_HOW)} {text}".strip() if draw.random() < 0.6 else text


def surroundings(draw: random.Random, vocabulary: list[str]) -> list[str]:
    """Phrases that ask for no move; now and then made of random words, so that unknown ones don't matter."""
    parts = [draw.choice(_SUBJECTS) for _ in range(draw.randint(0, 2))]
    parts += [draw.choice(_STYLES) for _ in range(draw.randint(0, 4))]
    if vocabulary and draw.random() < 0.5:
        parts.append(" ".join(draw.choice(vocabulary) for _ in range(draw.randint(1, 8))))
    draw.shuffle(parts)
    return parts


def draw_prompt(move: int, draw: random.Random, vocabulary: list[str]) -> str:
    """A prompt for a move (an index into MOVES), or for NO_MOVE one that asks for none (now and then empty)."""
    parts = surroundings(draw, vocabulary) if draw.random() < 0.8 else []
    if move == NO_MOVE:
        return draw.choice([", ", " ", ". "]).join(parts)
    place = 0 if draw.random() < 0.4 else draw.randint(0, len(parts))
    parts.insert(place, ask(move, draw))
    text = draw.choice([", ", ", ", " ", ". ", " and "]).join(parts)
    return text.capitalize() if draw.random() < 0.3 else text
