"""Models stay loaded between requests: their components, and the pipeline of the last request put together of them.

What a request needs and is not there is read; what it does not need stays as long as there is room. So another motion
adapter, base model, LoRA, scheduler or conditioning mode costs what is new about it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from safetensors import SafetensorError

from vidkit.device import Plan, give_back_spare_memory, memory_held
from vidkit.errors import SetupError
from vidkit.failures import typed_failure
from vidkit.libraries import quiet
from vidkit.memory import room_beside
from vidkit.models.files.file_format import examine
from vidkit.models.loading.components import Part, load_parts
from vidkit.models.loading.reading import OnRead
from vidkit.models.loading.tensors import move, the_device
from vidkit.models.loading.warm import WarmComponents, give_back
from vidkit.models.loras import is_lora
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Family, Models
from vidkit.pipelines.fast import rehearsed
from vidkit.pipelines.loras import apply_loras, forget_loras, remove_loras
from vidkit.placement import expect_changes, place, release, resting_place

logger = logging.getLogger("vidkit")

#: what diffusers, transformers and safetensors raise over files that are missing, cut short or do not fit together
LOAD_ERRORS: Final = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError)

Result = TypeVar("Result")


class Job(Protocol):
    """Of a request, what decides its pipeline."""

    @property
    def params(self) -> GenerationParams: ...
    @property
    def family(self) -> Family: ...
    @property
    def models(self) -> Models: ...
    @property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of the models, by the same names."""


class WarmModels:
    """What this process keeps loaded (a `vidkit.device_lock.Keeper`). Not thread-safe: used within a turn."""

    def __init__(self) -> None:
        self._components = WarmComponents()
        self._key: Hashable = None
        self._pipe: Any = None
        self._plan: Plan | None = None  # with which the pipeline is placed
        self._is_given_out = False  # somebody may have a pipeline, whose networks the next one may share

    @property
    def last_pipeline(self) -> Any:
        """The diffusers pipeline of the last request, as long as it is loaded; None else. Whoever asks may change how
        it computes."""
        self._is_given_out = True
        if self._pipe is not None:
            expect_changes(self._pipe)
        return self._pipe

    @property
    def names(self) -> list[str]:
        """Of the models that something is loaded of, those used last at the end."""
        return self._components.models

    def pipeline(self, job: Job, plan: Plan, on_read: OnRead = lambda done, total: None) -> Any:
        """The request's pipeline: the last one, or put together of what is loaded and of what is read now.

        With another plan, loaded components go to another place, and are not read again.

        Raises:
            SetupError: `invalid_model`; nothing of what was loaded before is lost then, but what made room.
        """
        plan = replace(plan, changes=())  # of the request, not of the pipeline
        parts = job.family.parts(job.params, job.models)
        keys = component_keys(job, plan, parts)
        key = (pipeline_key(job), *keys.values())
        if self._key != key:
            self._retire()  # before room is made: it holds on to its components
        elif self._plan != plan:
            self._release()
        rooms = typed_loading(job, lambda: room_beside(job.params, job.models, plan, self._components.size))
        self._components.make_room(rooms, keys.values())
        components = self._components.found(keys)
        if self._plan is None:
            device = the_device(resting_place(plan))
            moved = [move(component, device) for component in components.values()]
            if any(moved):
                give_back()
            if self._pipe is None:
                missing = {name: part for name, part in parts.items() if name not in components}
                read = loaded(job, plan, missing, on_read)
                for name, component in read.items():
                    self._components.keep(keys[name], component, parts[name].model.name)
                self._pipe, self._key = assembled(job, components | read), key
            place(self._pipe, plan)
            if self._is_given_out:
                expect_changes(self._pipe)
            self._plan = plan
        apply_loras(self._pipe, job.params, job.models, job.hashes)
        return self._pipe

    @property
    def kept_on_host(self) -> int:
        """Bytes of the host's memory that loaded components take, which a request uses again or drops first."""
        return self._components.size("cpu")

    def held(self) -> int | None:
        if not self._components:
            return None
        on_device = memory_held()
        return self._components.size("cpu") if on_device is None else on_device

    def trim(self) -> None:
        give_back_spare_memory()

    def unload(self) -> None:
        self._retire()
        forget_loras()
        self._components.drop()
        self._is_given_out = False

    def _retire(self) -> None:
        """Let go of the last pipeline. Its components may stay; they are left as they were loaded."""
        if self._pipe is not None:
            self._release()
        self._key, self._pipe = None, None

    def _release(self) -> None:
        remove_loras(self._pipe)  # first, so that what is taken back of the weights is of those that sums stand for
        release(self._pipe)
        self._plan = None


def fresh_pipeline(job: Job, plan: Plan) -> Any:
    """The request's pipeline, all of it read from disk and nothing of it kept."""
    pipe = assembled(job, loaded(job, plan, job.family.parts(job.params, job.models)))
    place(pipe, plan)
    return pipe


def pipeline_key(job: Job) -> Hashable:
    """What a pipeline depends on beside its components.

    The conditioning decides its class, and what of a PIA adapter is used; the scheduler is the base model's, or what
    the folder around it, or a card, says where it is one file.
    """
    models = sorted((name, sha256) for name, sha256 in job.hashes.items() if not is_lora(name))
    base = job.models["base_model"]
    around = str(base.configs) if base.path.is_file() else ""
    cards = [json.dumps(model.card.get("scheduler")) for name, model in job.models.items() if not is_lora(name)]
    return (job.params.pipeline, job.params.conditioning, *models, around, *cards)


def component_keys(job: Job, plan: Plan, parts: Mapping[str, Part]) -> dict[str, Hashable]:
    """What each component depends on: its model's content, and in one file the configuration that lies elsewhere."""
    hashes = {model.path: job.hashes[name] for name, model in job.models.items()}
    return {name: (hashes[part.model.path], part.name, part.elsewhere(), plan.dtype) for name, part in parts.items()}


def loaded(
    job: Job, plan: Plan, parts: Mapping[str, Part], on_read: OnRead = lambda done, total: None
) -> dict[str, Any]:
    """These components, read from disk."""
    if not parts:
        return {}
    logger.info("loading %s", ", ".join(map(str, parts.values())))
    with rehearsed(plan):
        return typed_loading(job, lambda: load_parts(parts, resting_place(plan), plan.dtype, on_read))


def assembled(job: Job, components: Mapping[str, Any]) -> Any:
    """A pipeline of loaded components, which are in one place."""
    with quiet():
        return typed_loading(job, lambda: job.family.assemble(job.params, job.models, components))


def typed_loading(job: Job, work: Callable[[], Result]) -> Result:
    try:
        return work()
    except LOAD_ERRORS as error:
        if typed_failure(error, job.params) is not None:  # out of memory and the like: not the model's fault
            raise
        raise unloadable(job, error) from error


def unloadable(job: Job, error: Exception) -> SetupError:
    names = ", ".join(model.name for model in job.models.values())
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return SetupError(
        "invalid_model",
        f"{names} does not load; a file may be missing, incomplete or damaged: {reason}",
        [
            examine(*(model.path for model in job.models.values())),
            "Check that its parts belong together (Stable Diffusion 1.5 for animatediff)",
        ],
    )
