"""The catalogue of models that users want: where each comes from, its size, licence, needs and limits."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vidkit.errors import InputError
from vidkit.models.checkpoints.findings import Kind
from vidkit.params import GenerationParams, canonical_name, canonical_names, group_of

FILE: Final = Path(__file__).with_name("catalogue.yaml")

#: groups of parameters that a card says nothing of: which picture and models, and what becomes of the clip
NOT_OF_A_CARD: Final = ("picture", "model", "output", "hidden")


class Need(BaseModel):
    """What has to be beside a model. what: in words; names: of the catalogue, any of which serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str = Field(min_length=1)
    names: tuple[str, ...] = ()


class Published(BaseModel):
    """A published model. kind: as inspection calls it.

    family: that it is for; custom: whichever. repository and files: on the Hugging Face hub, and patterns (fnmatch) of
    the files wanted, none where what loading needs is found by itself; or url: one file.
    gigabytes: 1e9 bytes to fetch, approximate. frames: that it holds at once; size: (width, height) in pixels that it
    was made for; steps and guidance: the ranges that it works with, where they are not the usual ones. card: what
    `vidkit.json` says in its folder. before_use: what else is to be done
    for requests to take it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str = Field(min_length=1, max_length=38)
    use: str = ""
    kind: Kind
    family: Literal["svd", "animatediff", "custom"]
    repository: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    files: tuple[str, ...] = ()
    url: str | None = Field(None, pattern=r"^https://")
    gigabytes: float = Field(gt=0)
    licence: str = Field(min_length=1)
    gated: bool = False
    nsfw: bool = False
    needs: tuple[Need, ...] = ()
    frames: int | None = Field(None, ge=1)
    size: tuple[int, int] | None = None
    steps: tuple[int, int] | None = None
    guidance: tuple[float, float] | None = None
    card: Mapping[str, Any] = Field(default_factory=dict)
    before_use: str | None = None

    @model_validator(mode="after")
    def check(self) -> Self:
        if (self.url is None) == (self.repository is None) or (self.url and self.files):
            raise ValueError(f"{self.name} needs a repository, or a url")
        defaults = self.card.get("defaults", {})
        unknown = [key for key in defaults if canonical_name(key) not in GenerationParams.model_fields]
        if unknown:
            raise ValueError(f"the card of {self.name} has unknown parameters: {', '.join(unknown)}")
        try:
            GenerationParams(**{"image_path": "any", "prompt": "any", **canonical_names(defaults)})
        except InputError as error:
            raise ValueError(f"the card of {self.name}: {error.message}") from error
        if wrong := not_of_a_card(defaults):
            raise ValueError(f"the card of {self.name} sets {', '.join(wrong)}")
        return self

    @property
    def source(self) -> str:
        """Where it comes from, as the registry notes it."""
        return self.repository or str(self.url)

    @property
    def page(self) -> str:
        """Where a person reads about it and accepts its licence."""
        return f"https://huggingface.co/{self.repository}" if self.repository else str(self.url)

    def limits(self) -> dict[str, str]:
        """What to keep to, in words."""
        told = {}
        if self.frames:
            told["frames"] = f"{self.frames} at once"
        if self.size:
            told["size"] = f"{self.size[0]} x {self.size[1]}"
        if self.steps:
            told["steps"] = span(*self.steps)
        if self.guidance:
            told["guidance"] = span(*self.guidance)
        if "scheduler" in self.card:
            told["scheduler"] = str(self.card["scheduler"]["class"])
        return told


@functools.cache
def catalogue() -> tuple[Published, ...]:
    """All of them, in the file's order.

    Raises:
        ValueError: the file is wrong, a defect of vidkit.
    """
    published = tuple(Published(**entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8")))
    names = [one.name for one in published]
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice")
    for one in published:
        unknown = [name for need in one.needs for name in need.names if name not in names]
        if unknown:
            raise ValueError(f"{one.name} needs {', '.join(unknown)}, which the catalogue does not have")
    return published


def find_published(wanted: str) -> Published | None:
    """The one of a name, whatever its case, or of a hub repository that is there once."""
    folded = wanted.strip().lower()
    by_name = [one for one in catalogue() if one.name == folded]
    found = by_name or [one for one in catalogue() if one.repository and one.repository.lower() == folded]
    return found[0] if len(found) == 1 else None


def not_of_a_card(defaults: Mapping[str, Any]) -> list[str]:
    """Those of a card's defaults that no card can set. What it says comes too late to choose models by it."""
    return [name for name in canonical_names(defaults) if name == "prompt" or group_of(name) in NOT_OF_A_CARD]


def span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
