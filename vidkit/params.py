"""`GenerationParams`: the one place that knows a parameter's name, type, bounds, default, unit, help and users.

The command line's options, the JSON protocol, the YAML files, the panel's controls and the record inside a clip are all
this schema. What a model family narrows (`Limits`) is data in the family's file, applied by `resolve`.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from vidkit.errors import InputError, Remedy
from vidkit.lora_list import LORAS, MAX_WEIGHT, parse_loras, with_names

SCHEMA_VERSION: Final = 1
MAX_SEED: Final = 2**31 - 1

PipelineName = Literal["svd", "animatediff"]
Conditioning = Literal["init", "sparsectrl", "pia"]
Fit = Literal["crop", "pad", "stretch"]
Speed = Literal["exact", "fast", "turbo"]
Windowing = Literal["chained", "together"]
OutputFormat = Literal["mp4", "gif", "webm"]

#: what belongs together in an interface, in its order there; "hidden": nothing for a person to set
Group = Literal["picture", "prompt", "model", "size", "motion", "quality", "more", "output", "hidden"]

EVERY_FAMILY: Final = get_args(PipelineName)


def parameter(
    default: Any,
    help: str,
    *,
    used_by: tuple[str, ...] = EVERY_FAMILY,
    unit: str = "",
    group: Group = "more",
    **bounds: Any,
) -> Any:
    """A schema field.

    used_by: families, or "family/conditioning" for one conditioning mode of a family; bounds: pydantic's (ge, gt, le,
    lt), and `title` where the name itself is no good label.
    """
    extra: dict[str, Any] = {"unit": unit, "usedBy": list(used_by), "group": group}
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class GenerationParams(BaseModel):
    """One request: a picture and how to move it. Immutable; `replace` makes a changed copy.

    Accepts snake_case and camelCase keys; null means "not given". None as a value means "the model's own default",
    which `resolve` fills in.

    Raises:
        InputError: for an unknown key (naming the nearest known one), a value of the wrong type or out of range.
    """

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    schema_version: int = parameter(SCHEMA_VERSION, "Version of this schema.", group="hidden", ge=1, le=SCHEMA_VERSION)
    pipeline: PipelineName = parameter("svd", "Model family: svd, or animatediff for control by text.", group="model")
    base_model: str | None = parameter(
        None,
        "Model: a diffusers folder, a name in the models folder or bundled:NAME; for animatediff a Stable Diffusion "
        "1.5 folder or .safetensors file. Not given: the family's default model.",
        group="model",
    )
    motion_adapter: str | None = parameter(None, "Motion adapter folder.", group="model", used_by=("animatediff",))
    controlnet: str | None = parameter(
        None, "SparseCtrl model folder.", title="SparseCtrl model", group="model", used_by=("animatediff/sparsectrl",)
    )
    loras: str | None = parameter(
        None,
        f"LoRAs and motion LoRAs with their weights: NAME:WEIGHT, NAME:WEIGHT. A weight is from {-MAX_WEIGHT:g} to "
        f"{MAX_WEIGHT:g}; without one it is 1.",
        title="LoRAs",
        group="model",
        used_by=("animatediff",),
    )
    image_path: str = parameter(
        ..., "The picture to animate: an image file, or a clip made by vidkit.", group="picture", min_length=1
    )
    last_image_path: str | None = parameter(
        None, "Picture for the last frame.", group="picture", used_by=("animatediff/sparsectrl",)
    )
    prompt: str = parameter(
        ..., "What should be seen and happen. Required; svd ignores it.", group="prompt", used_by=("animatediff",)
    )
    negative_prompt: str = parameter("", "What should not be seen.", group="prompt", used_by=("animatediff",))
    width: int | None = parameter(None, "Width of the clip.", group="size", unit="pixels", ge=16, le=4096)
    height: int | None = parameter(None, "Height of the clip.", group="size", unit="pixels", ge=16, le=4096)
    fit: Fit = parameter("crop", "How the picture is fitted to the size: crop, pad or stretch.", group="size")
    num_frames: int | None = parameter(
        None, "Length of the clip.", title="Frames", group="size", unit="frames", ge=2, le=1024
    )
    window_frames: int | None = parameter(
        None,
        "Frames that the model sees at once; a longer clip is made in sliding windows. Not given: as many as it holds.",
        title="Window",
        group="more",
        unit="frames",
        ge=2,
        le=1024,
    )
    windowing: Windowing = parameter(
        "chained",
        "How windows come about. chained: each goes on from the last, so that a move goes on, and the picture changes "
        "little by little. together: all at once, each from the picture, which holds; for static shots, since no move "
        "gets further than in one window.",
        title="Windows are made",
        group="more",
        used_by=("svd", "animatediff/pia"),
    )
    fps: int = parameter(
        8,
        "Playback rate; for svd also a condition of the motion.",
        title="Frame rate",
        group="size",
        unit="frames/s",
        ge=1,
        le=120,
    )
    num_inference_steps: int | None = parameter(
        None, "Denoising steps.", title="Steps", group="quality", unit="steps", ge=1, le=200
    )
    guidance_scale: float = parameter(
        7.5,
        "How far the prompt is obeyed; 1 switches guidance off.",
        group="motion",
        used_by=("animatediff",),
        ge=1,
        le=30,
    )
    min_guidance_scale: float | None = parameter(
        None, "Guidance at the first frame.", group="motion", used_by=("svd",), ge=1, le=20
    )
    max_guidance_scale: float | None = parameter(
        None, "Guidance at the last frame; 1 switches guidance off.", group="motion", used_by=("svd",), ge=1, le=20
    )
    motion_bucket_id: int = parameter(
        127, "Amount of motion.", title="Motion bucket", group="motion", used_by=("svd",), ge=0, le=255
    )
    noise_aug_strength: float = parameter(
        0.02,
        "Noise added to the picture: more frees the motion from it.",
        title="Noise on the picture",
        group="motion",
        used_by=("svd",),
        ge=0,
        le=1,
    )
    conditioning: Conditioning = parameter(
        "init",
        "How the picture conditions animatediff: init (start from it, see strength), sparsectrl (it is the first "
        "frame) or pia (extra channels of a PIA motion adapter).",
        group="model",
        used_by=("animatediff",),
    )
    strength: float = parameter(
        0.8, "How much the picture may change: 1 ignores it.", group="motion", used_by=("animatediff/init",), gt=0, le=1
    )
    conditioning_scale: float = parameter(
        1.0, "Weight of the SparseCtrl picture.", group="motion", used_by=("animatediff/sparsectrl",), ge=0, le=2
    )
    motion_scale: int = parameter(0, "PIA's motion preset.", group="motion", used_by=("animatediff/pia",), ge=0, le=8)
    seed: int = parameter(
        -1, "Random seed; -1 draws one, which the result reports.", group="motion", ge=-1, le=MAX_SEED
    )
    decode_chunk_size: int = parameter(
        4,
        "Frames decoded at once: fewer need less memory.",
        title="Decode chunk",
        group="quality",
        unit="frames",
        ge=1,
        le=1024,
    )
    allow_changes: bool = parameter(
        False,
        "Where nothing else fits into memory, change the clip rather than refuse it: fewer frames decoded at once, "
        "windows, a smaller size, fewer frames.",
        group="quality",
    )
    speed: Speed = parameter(
        "exact",
        "exact: what plain diffusers computes; fast: equal up to rounding; turbo: only some steps are computed.",
        group="quality",
    )
    turbo_share: float = parameter(
        0.25,
        "At speed turbo, the share of the steps after the first few that are computed; the others are foreseen. At 1, "
        "all are computed.",
        group="quality",
        gt=0,
        le=1,
    )
    output_format: OutputFormat | None = parameter(
        None, "Container. Not given: from the output path, else mp4.", group="output"
    )
    output_path: str | None = parameter(
        None, "Where to write. Not given: a dated name in the output folder.", group="output"
    )
    overwrite: bool = parameter(False, "Replace an existing output file.", group="output")
    bare: bool = parameter(
        False, "Keep settings and picture out of the clip; the AI-generated mark stays.", group="output"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        problems: list[InputError] = []
        if isinstance(data, Mapping):
            data, problems = canonical_keys(data)
            prompt = data.get("prompt", "")
            if isinstance(prompt, str) and not prompt.strip():
                problems.append(empty_prompt(data.get("pipeline", "svd")))
            problems += lora_problems(data.get(LORAS))
        try:
            params = handler(data)
            if not problems:
                return params
        except ValidationError as error:
            problems += validation_problems(error)
        raise in_one(problems)

    def replace(self, **changes: Any) -> Self:
        """A copy with changes, checked like a new request. A change to None takes the parameter back."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **changes})

    def to_wire(self) -> dict[str, Any]:
        """The request as JSON-able camelCase keys; what was not given stays away, but the schema version."""
        wire = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        return {"schemaVersion": self.schema_version, **wire}

    def to_record(self) -> dict[str, Any]:
        """Every parameter with its value, JSON-able, camelCase keys."""
        return self.model_dump(mode="json", by_alias=True)


def wire_name(name: str) -> str:
    return GenerationParams.model_fields[name].alias or name


def canonical_name(key: str) -> str:
    """The snake_case name of a parameter given in either spelling; an unknown key comes back as it is."""
    return names_by_wire_name().get(key, key)


@functools.cache
def names_by_wire_name() -> dict[str, str]:
    return {wire_name(name): name for name in GenerationParams.model_fields}


def canonical_keys(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[InputError]]:
    """Snake_case keys, nulls left out; and what is wrong: unknown keys, keys given twice with two values."""
    result: dict[str, Any] = {}
    problems = []
    for key, value in data.items():
        name = canonical_name(key)
        if name not in GenerationParams.model_fields:
            problems.append(unknown_key(str(key)))
            continue
        if value is None:
            continue
        if name in result and result[name] != value:
            problems.append(
                InputError(
                    "invalid_value",
                    f"{wire_name(name)} is given twice, as {result[name]!r} and {value!r}.",
                    [f"Give {wire_name(name)} once"],
                    [name],
                )
            )
        result[name] = value
    return result, problems


def canonical_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Known keys of a partial request, as in a model's card, as snake_case; unknown ones are left out."""
    named = {canonical_name(key): value for key, value in data.items()}
    return {name: value for name, value in named.items() if name in GenerationParams.model_fields}


#: where any words do
EXAMPLE_PROMPT: Final = "slow camera move"


def empty_prompt(pipeline: Any) -> InputError:
    if pipeline == "svd":
        advice: str = Remedy(f"Set prompt to any words, for example: {EXAMPLE_PROMPT}", prompt=EXAMPLE_PROMPT)
    else:
        advice = "Describe what should happen, for example: slow cinematic zoom in, golden hour light"
    return InputError(
        "empty_prompt",
        "The prompt is empty. Every request needs one (svd ignores it, the protocol still asks for it).",
        [advice],
        ["prompt"],
    )


def lora_problems(written: Any) -> list[InputError]:
    try:
        if isinstance(written, str):
            parse_loras(written)
    except InputError as error:
        return [error]
    return []


def with_places(name: str, value: str, change: Callable[[str], str]) -> str:
    """A value of a parameter that names files, each of the names or paths in it changed."""
    return with_names(value, change) if name == LORAS else change(value)


def nearest_name(key: str) -> str | None:
    """The parameter (snake_case) whose name is most like a mistyped key, if any is."""
    folded = {name.replace("_", ""): name for name in GenerationParams.model_fields}
    near = difflib.get_close_matches(key.replace("_", "").replace("-", "").lower(), list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def unknown_key(key: str) -> InputError:
    nearest = nearest_name(key)
    if nearest is None:
        return InputError(
            "unknown_parameter",
            f"Unknown parameter {key!r}.",
            ["See vidkit generate --help for all parameters"],
        )
    return InputError(
        "unknown_parameter",
        f"Unknown parameter {key!r}. Did you mean {wire_name(nearest)!r}?",
        [f"Use {wire_name(nearest)!r} instead of {key!r}"],
    )


#: pydantic's error types that mean "right type, wrong amount"
RANGE_ERRORS: Final = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def in_one(problems: Sequence[InputError]) -> InputError:
    """All problems of a request in one error, so that they can be mended at once; its code is that of the first."""
    if len(problems) == 1:
        return problems[0]
    error = InputError(
        problems[0].code,
        " ".join(problem.message for problem in problems),
        [suggestion for problem in problems for suggestion in problem.suggestions],
        [name for problem in problems for name in problem.concerns],
    )
    error.problems = tuple(problems)
    return error


def validation_problems(error: ValidationError) -> list[InputError]:
    """pydantic's complaints in our words; a missing prompt is left to `empty_prompt`."""
    problems = []
    for item in error.errors(include_url=False):
        name = canonical_name(str(item["loc"][0])) if item["loc"] else "request"
        key = wire_name(name) if name in GenerationParams.model_fields else name
        if item["type"] == "missing":
            if name != "prompt":
                advice = f"Give {key}: {GenerationParams.model_fields[name].description}"
                problems.append(InputError("missing_parameter", f"{key} is missing.", [advice], [name]))
            continue
        code = "out_of_range" if item["type"] in RANGE_ERRORS else "invalid_value"
        message = f"{key} is {item['input']!r}: {item['msg'][:1].lower()}{item['msg'][1:]}."
        problems.append(InputError(code, message, [how_to_set(name, key, item["input"])], [name]))
    return problems


def how_to_set(name: str, written: str, given: Any) -> str:
    """What to set a parameter to instead of a wrong value: the nearest right one, if any is near. written: its name."""
    nearest = nearest_value(name, given)
    if nearest is None:
        return f"Set {written} to {describe_values(name)}"
    shown = f"{nearest:g}" if isinstance(nearest, float) else str(nearest).lower()
    return Remedy(f"Set {written} to {shown}: it takes {describe_values(name)}", **{name: nearest})


#: what people write for true and false
SAID: Final = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def nearest_value(name: str, given: Any) -> Any:
    """The value nearest to a wrong one that a parameter can have; None where none is near, and for texts."""
    info = GenerationParams.model_fields.get(name)
    if info is None:
        return None
    written = str(given).strip().lower()
    if choices := choices_of(info):
        return next(iter(difflib.get_close_matches(written, choices, n=1)), None)
    kind, bounds = plain_type(info), bounds_of(info)
    if kind is bool:
        return SAID.get(written)
    if kind is str or isinstance(given, bool):
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    number = min(max(number, bounds.get("ge", -math.inf)), bounds.get("le", math.inf))
    if not math.isfinite(number) or number <= bounds.get("gt", -math.inf):
        return None
    return round(number) if kind is int else number


def bounds_of(info: FieldInfo) -> dict[str, float]:
    """The bounds a field declares: any of ge, gt, le, lt."""
    return {
        kind: getattr(part, kind)
        for part in info.metadata
        for kind in ("ge", "gt", "le", "lt")
        if getattr(part, kind, None) is not None
    }


def describe_values(name: str) -> str:
    """The values a parameter may have, in words."""
    info = GenerationParams.model_fields.get(name)
    if info is None:
        return "a JSON object"
    choices = choices_of(info)
    if choices:
        return "one of " + ", ".join(choices)
    bounds = bounds_of(info)
    kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[plain_type(info)]
    low = f" from {bounds['ge']}" if "ge" in bounds else f" above {bounds['gt']}" if "gt" in bounds else ""
    high = f" up to {bounds['le']}" if "le" in bounds else ""
    return kind + low + high


def plain_type(info: FieldInfo) -> type:
    """int, float, bool or str: a field's type without None; str for a choice."""
    parts = [part for part in (get_args(info.annotation) or (info.annotation,)) if part is not type(None)]
    return parts[0] if isinstance(parts[0], type) else str


def choices_of(info: FieldInfo) -> tuple[str, ...]:
    """The values of a Literal field, else ()."""
    for part in (info.annotation, *get_args(info.annotation)):
        values = get_args(part)
        if values and all(isinstance(value, str) for value in values):
            return values
    return ()


def users_of(name: str) -> list[str]:
    extra = GenerationParams.model_fields[name].json_schema_extra
    return list(extra["usedBy"]) if isinstance(extra, dict) else []  # type: ignore[arg-type]


def group_of(name: str) -> str:
    extra = GenerationParams.model_fields[name].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else "more"


def is_used(name: str, pipeline: str, conditioning: str) -> bool:
    """Whether a parameter has an effect with this family and conditioning."""
    return bool({pipeline, f"{pipeline}/{conditioning}"} & set(users_of(name)))


@dataclass(frozen=True)
class Limits:
    """What one model narrows: its own defaults, ranges, and the step of its sizes in pixels.

    defaults: by snake_case name, before the schema's, for parameters that were not given; ranges: (lowest, highest) by
    name.
    """

    model: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    size_multiple: int = 8
    ignored: Mapping[str, str] = field(default_factory=dict)  # parameter -> why this family has no use for it


def resolve(params: GenerationParams, limits: Limits) -> tuple[GenerationParams, list[str]]:
    """Every default filled in for one model, and notes on what it ignores.

    Raises:
        InputError: `out_of_range` or `invalid_size`, naming the nearest valid value; all of them in one.
    """
    given = {name for name in params.model_fields_set if getattr(params, name) is not None}
    filled = {name: value for name, value in limits.defaults.items() if name not in given}
    resolved = params.replace(**filled)
    problems = [*range_problems(resolved, limits), *size_problems(resolved, limits)]
    if problems:
        raise in_one(problems)
    return resolved, ignored_notes(params, limits)


def range_problems(params: GenerationParams, limits: Limits) -> list[InputError]:
    problems = []
    for name, (low, high) in limits.ranges.items():
        value = getattr(params, name)
        if value is None or low <= value <= high:
            continue
        nearest = plain_type(GenerationParams.model_fields[name])(min(max(value, low), high))
        problems.append(
            InputError(
                "out_of_range",
                f"{wire_name(name)} is {value}; {limits.model} takes {low:g} to {high:g}.",
                [Remedy(f"Set {wire_name(name)} to {nearest:g}", **{name: nearest})],
                [name],
            )
        )
    return problems


def size_problems(params: GenerationParams, limits: Limits) -> list[InputError]:
    step = limits.size_multiple
    sides = {"width": params.width, "height": params.height}
    wrong = [name for name, side in sides.items() if side is None or side % step]
    if not wrong:
        return []
    nearest = {name: nearest_multiple(side or step, step, limits.ranges.get(name)) for name, side in sides.items()}
    width, height = nearest["width"], nearest["height"]
    return [
        InputError(
            "invalid_size",
            f"{params.width}x{params.height} pixels is not a size {limits.model} can make: width and height must be "
            f"multiples of {step}. The nearest valid size is {width}x{height}.",
            [Remedy(f"Set width to {width} and height to {height}", **nearest)],
            wrong,
        )
    ]


def nearest_multiple(value: int, step: int, bounds: tuple[float, float] | None) -> int:
    low, high = bounds or (step, value + step)
    return max(step, round(min(max(value, low), high) / step) * step)


def ignored_notes(params: GenerationParams, limits: Limits) -> list[str]:
    """A note for each parameter that was given but has no effect here."""
    notes = []
    for name in GenerationParams.model_fields:
        if name not in params.model_fields_set or is_used(name, params.pipeline, params.conditioning):
            continue
        info = GenerationParams.model_fields[name]
        if getattr(params, name) == "" or (name not in limits.ignored and getattr(params, name) == info.default):
            continue
        users = " and ".join(user.replace("/", " with conditioning ") for user in users_of(name))
        reason = limits.ignored.get(name, f"only {users} uses it")
        notes.append(f"{wire_name(name)} is ignored: {reason}.")
    if params.speed != "turbo" and params.turbo_share != GenerationParams.model_fields["turbo_share"].default:
        notes.append("turboShare is ignored: only speed turbo uses it.")
    return notes
