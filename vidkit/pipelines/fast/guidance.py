"""SVD's pipeline asks at each step whether any frame's guidance scale is above 1, which the host waits for the device
to say. The scales are those that the call was given, so the answer of its beginning holds."""

from __future__ import annotations

from functools import cache
from typing import Any


def ask_once(pipe: Any) -> None:
    """Have a pipeline ask as a call of it begins, and not again in that call."""
    kind: type = type(pipe)
    pipe.__class__ = asking_once(kind)


def ask_again(pipe: Any) -> None:
    """Take back what `ask_once` did."""
    if vars(type(pipe)).get("asks_once"):
        pipe.__class__ = type(pipe).__bases__[0]
        vars(pipe).pop("_is_guided", None)


@cache
def asking_once(pipeline: type) -> type:
    def do_classifier_free_guidance(pipe: Any) -> bool:
        if isinstance(pipe._guidance_scale, int | float):  # as a call begins; a tensor later
            pipe._is_guided = pipe._guidance_scale > 1
        return bool(pipe._is_guided)

    own = {"do_classifier_free_guidance": property(do_classifier_free_guidance), "asks_once": True}
    return type(pipeline.__name__, (pipeline,), own)
