"""The scheduler of a pipeline: the base model's own, or which a model's card names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidkit.models.files.config_files import invalid_config, read_json
from vidkit.models.loading.components import INDEX, named_class
from vidkit.models.locate import Model, card_file

#: in place of a class and its configuration: the checkpoint's scheduler as it was saved
SAVED = "model"


def scheduler(base: Model, by: Model, usual: str | Mapping[str, Any] = SAVED) -> Any:
    """A new one, as the card of `by` has it, else the usual one; of what neither says the base model's own says it.

    Raises:
        SetupError: `invalid_model`.
    """
    saved, own = saved_scheduler(base), by.card.get("scheduler", usual)
    if own == SAVED:
        return saved
    card = card_file(by.path)
    if not isinstance(own, Mapping) or not isinstance(own.get("config", {}), Mapping):
        raise invalid_config(card, f'scheduler must be "{SAVED}" or {{"class": NAME, "config": {{}}}}')
    return scheduler_class(str(own.get("class")), card).from_config(saved.config, **own.get("config", {}))


def saved_scheduler(model: Model) -> Any:
    """Of the class and with the settings that the model names.

    Raises:
        SetupError: `invalid_model`.
    """
    cls = scheduler_class(named_class(model, "scheduler"), model.configs / INDEX)
    return cls.from_config(read_json(model.configs / "scheduler" / "scheduler_config.json"))


def scheduler_class(name: str, file: Path) -> Any:
    """file: that names it, for errors."""
    import diffusers

    from vidkit.pipelines.consistency import VideoConsistencyScheduler

    if name == VideoConsistencyScheduler.__name__:
        return VideoConsistencyScheduler
    cls = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if cls is None:
        raise invalid_config(file, f"there is no scheduler {name!r}")
    return cls
