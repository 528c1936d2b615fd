"""The content key of a request: which clip it makes, before it is made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from vidkit.models.files.content_hash import hash_model
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.record import content_of, file_identity, identities_of, key_of
from vidkit.resolving import resolve_request
from vidkit.settings import Settings, load_settings


class Seen:
    """What a planning pass has found and hashed: many points share their picture and their models.

    A changed file is not noticed by the pass that has seen it, so make a new one for each.
    """

    #: what a family finds its models by
    MODELS_DEPEND_ON: Final = ("pipeline", "conditioning", "base_model", "motion_adapter", "controlnet", "loras")

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self._pictures: dict[Path, dict[str, str]] = {}
        self._found: dict[tuple[Any, ...], Models] = {}
        self._hashes: dict[Path, str] = {}

    def picture(self, path: Path) -> dict[str, str]:
        """Name and SHA-256. Raises InputError `image_not_found`."""
        if path not in self._pictures:
            self._pictures[path] = file_identity(path)
        return self._pictures[path]

    def models(self, params: GenerationParams) -> Models:
        """Raises SetupError `model_not_found`, `invalid_model`."""
        wanted = tuple(getattr(params, name) for name in self.MODELS_DEPEND_ON)
        if wanted not in self._found:
            self._found[wanted] = FAMILIES[params.pipeline].models(params, self.settings)
        return self._found[wanted]

    def identities(self, params: GenerationParams, models: Models) -> dict[str, dict[str, str]]:
        """As `vidkit.record.identities_of`. Raises SetupError `invalid_model`, and what that raises."""
        for model in models.values():
            if model.path not in self._hashes:
                self._hashes[model.path] = hash_model(model.path, self.settings)
        hashes = {name: self._hashes[model.path] for name, model in models.items()}
        return identities_of(params, models, hashes)


def content_key(params: GenerationParams, *, seen: Seen | None = None) -> tuple[str, GenerationParams]:
    """The key of the clip that a request makes on this machine, and the request with every default filled in.

    It is the hash of the results version, the resolved request (speed, decode chunk and everything else but its paths),
    the input pictures' bytes and the models' contents (windows are decided by these), and of whether the settings have
    every clip checked: `vidkit.record.key_of`, which gives the same for the finished clip's record. A seed of -1 is
    drawn, so that its key is another each time.

    Args:
        seen: files already hashed; by default all are looked at again.

    Raises:
        InputError: what the models do not take; `image_not_found`.
        SetupError: `model_not_found`, `invalid_model`.
    """
    seen = seen or Seen()
    found = resolve_request(params, seen.settings, seen.models(params))
    pictures = [seen.picture(path) for path in found.pictures]
    models = seen.identities(found.params, found.models)
    checker = found.screening.to_record()
    return key_of(content_of(found.params, models=models, pictures=pictures, safety_checker=checker)), found.params


def content_keys(requests: Iterable[GenerationParams]) -> list[str]:
    """The keys of many requests, of which each file is read once. Seeds should be drawn. Raises as `content_key`."""
    seen = Seen()
    return [content_key(params, seen=seen)[0] for params in requests]
