"""Whether a part goes with a base model, in words."""

from __future__ import annotations

from typing import Final

from vidkit.models.checkpoints.findings import Kind
from vidkit.models.inspection import Inspection

#: what a pipeline is built around
BASES: Final[frozenset[Kind]] = frozenset(
    {
        "base model",
        "inpainting base model",
        "depth-conditioned base model",
        "InstructPix2Pix model",
        "upscaler",
        "refiner",
        "Stable Video Diffusion",
    }
)
#: what is put to one. Not encoders: which of them a model has is not told by their keys.
PARTS: Final[frozenset[Kind]] = frozenset(
    {
        "motion adapter",
        "motion LoRA",
        "LoRA",
        "SparseCtrl",
        "ControlNet",
        "T2I-Adapter",
        "IP-Adapter",
        "textual inversion",
        "VAE",
        "UNet",
        "transformer",
    }
)


def why_not_together(part: Inspection, base: Inspection) -> str | None:
    """Why a part (motion adapter, LoRA, SparseCtrl, VAE, ...) does not go with a base model; None when nothing says so.

    "This motion adapter is for SD 1.5; the base model is SDXL."
    A motion adapter may stand for the base: whether a motion LoRA or a SparseCtrl model goes with it.
    """
    if part.kind not in PARTS:
        return f"This is {with_article(part.title)}, which is not put to another model."
    if base.kind not in BASES and base.kind != "motion adapter":
        return f"{capitalized(with_article(base.title))} is no base model."
    called = "motion adapter" if base.kind == "motion adapter" else "base model"
    if part.architectures and base.architectures and not set(part.architectures) & set(base.architectures):
        return f"This {part.kind} is for {part.architecture}; the {called} is {base_in_words(base)}."
    return other_widths(part, base, called)


def other_widths(part: Inspection, base: Inspection, called: str) -> str | None:
    """A model made smaller, or cut down, has an architecture's layers in other widths."""
    own, theirs = part.details, base.details
    for key, what in (("block_out_channels", "channels"), ("cross_attention_dim", "text conditions of width")):
        if part.kind == "VAE" or key not in own or key not in theirs or own[key] == theirs[key]:
            continue
        return f"This {part.kind} is for {what} {own[key]}; the {called} has {theirs[key]}."
    channels = theirs.get("block_out_channels", ())
    for level, width in own.get("level_channels", {}).items():
        if channels and (level >= len(channels) or channels[level] != width):
            return f"This {part.kind} is for {width} channels at level {level}; the {called} has {channels}."
    if base.kind == "motion adapter" and own.get("use_motion_mid_block") and not theirs.get("use_motion_mid_block"):
        changed = "motion modules in the middle of the UNet, as v2 has them"
        return f"This {part.kind} changes {changed}; the {called} has none."
    return None


def base_in_words(base: Inspection) -> str:
    if base.kind == "motion adapter":
        return f"for {base.architecture}"
    return base.architecture if base.kind == "base model" else with_article(base.title)


def with_article(title: str) -> str:
    """ "an SDXL refiner", "a motion adapter": by how its first letters are said."""
    if title == "Stable Video Diffusion":
        return title
    word = title.split()[0]
    vowel = word[0] in "AEFHILMNORSX" if word.isupper() else word[0].lower() in "aeio"
    return f"{'an' if vowel else 'a'} {title}"


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
