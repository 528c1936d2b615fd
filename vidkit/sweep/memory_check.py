"""Which points of a sweep fit into the memory of this machine. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from vidkit.errors import GenerationError, SetupError, VidkitError
from vidkit.memory.fitting import Case, Room
from vidkit.memory.free import expected_device
from vidkit.memory.plan_words import refusal
from vidkit.memory.planning import case_of, planned_case
from vidkit.memory.prediction import is_guided
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models

#: what memory depends on, beside the models and whether guidance is on
SHAPE: Final = (
    "pipeline",
    "conditioning",
    "width",
    "height",
    "num_frames",
    "window_frames",
    "windowing",
    "decode_chunk_size",
    "last_image_path",
    "allow_changes",
    "loras",
)


@dataclass
class MemoryCheck:
    """For the memory that is free when it is first asked; requests alike in what decides are planned once."""

    _answers: dict[Any, bool] = field(default_factory=dict)

    def fits(self, params: GenerationParams, models: Models) -> bool:
        """Whether a resolved request fits; also where nobody knows. What cannot be read is told when it is loaded."""
        key = (
            is_guided(params),
            *(getattr(params, name) for name in SHAPE),
            *(str(model.path) for model in models.values()),
        )
        if key not in self._answers:
            try:
                self._answers[key] = planned_case(self._case(params, models)) is not None
            except SetupError:
                self._answers[key] = True
        return self._answers[key]

    def refusal(self, params: GenerationParams, models: Models) -> GenerationError:
        """Why a request does not fit, and what would."""
        return refusal(self._case(params, models))

    def _case(self, params: GenerationParams, models: Models) -> Case:
        device, room = self._place
        return case_of(params, models, device, room)

    @cached_property
    def _place(self) -> tuple[str, Room]:
        try:
            device = expected_device()
        except VidkitError:  # the device that was asked for is not there, which a run says
            return "cpu", Room(None)
        return device, Room.now(device)
