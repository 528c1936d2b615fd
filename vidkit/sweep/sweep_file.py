"""A sweep's YAML file, read and checked as far as it can be without knowing the models.

    name: motion                     # default: the file's name
    description: ...                 # optional
    notebook: my.ipynb               # default: vidkit's own
    base: {image_path: example:photo, prompt: slow zoom in}
    axes: {motion_bucket_id: 20..120 (+20), seed: random [3]}      # short forms: see axes.py
    zip: [[width, height]]           # axes that advance together
    exclude: [{motion_bucket_id: 100..120, seed: 3}]               # points that match all of one mapping
    repeats: 1                       # copies of each point with different drawn seeds

Paths are relative to the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vidkit.errors import InputError
from vidkit.near_paths import near_paths
from vidkit.params import SCHEMA_VERSION, GenerationParams, canonical_name, unknown_key
from vidkit.paths import local_path
from vidkit.shipped import shipped
from vidkit.sweep.axes import MAX_POINTS, REPLACEMENT, expand, is_axis_name, is_replacement
from vidkit.sweep.problems import Problems, some
from vidkit.sweep.yaml_text import read_yaml

KEYS: Final = ("name", "description", "notebook", "base", "axes", "zip", "exclude", "repeats", "schemaVersion")

#: a sweep places its clips itself
NOT_IN_A_SWEEP: Final = ("output_path", "overwrite")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says, names in snake_case, values expanded. Seeds to be drawn are -1.

    failed: axes whose values could not be told (a problem was noted); they are not in `axes`.
    """

    path: Path
    name: str
    description: str
    notebook: Path
    base: Mapping[str, Any]
    axes: Mapping[str, list[Any]]
    zips: Sequence[tuple[str, ...]]
    excludes: Sequence[Mapping[str, list[Any]]]
    repeats: int
    failed: frozenset[str] = field(default=frozenset())

    @property
    def folder(self) -> Path:
        return self.path.parent


def default_notebook() -> Path:
    """What runs a point when the sweep names no notebook."""
    return shipped("notebooks") / "generate.ipynb"


def read_sweep_file(path: Path, problems: Problems) -> SweepFile:
    """The file's content; what is wrong with it is added to problems.

    Raises:
        InputError: `invalid_request`, when the file is not there or not a YAML mapping.
    """
    content = read_mapping(path, problems)
    check_keys(content, problems)
    base = read_base(content.get("base"), problems)
    axes, failed = read_axes(content.get("axes"), base, problems)
    known = [*axes, *failed]
    return SweepFile(
        path=path.absolute(),
        name=read_name(content.get("name"), path, problems),
        description=read_text("description", content.get("description"), problems),
        notebook=read_notebook(content.get("notebook"), path, problems),
        base=base,
        axes=axes,
        zips=read_zips(content.get("zip"), axes, known, problems),
        excludes=read_excludes(content.get("exclude"), known, problems),
        repeats=read_repeats(content.get("repeats"), problems),
        failed=frozenset(failed),
    )


def read_mapping(path: Path, problems: Problems) -> dict[str, Any]:
    try:
        content, complaints = read_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            "invalid_request", f"The sweep file {path} cannot be read: {reason}.", near_paths(path)
        ) from error
    except InputError as error:
        raise InputError(error.code, f"{path.name}: {error.message}", error.suggestions) from error
    for complaint in complaints:
        problems.add(complaint + ".")
    if not isinstance(content, dict):
        raise InputError(
            "invalid_request",
            f"{path.name} is no sweep: it holds {type(content).__name__}, not keys and values.",
            [f"Write some of {', '.join(KEYS)}"],
        )
    return content


def check_keys(content: Mapping[Any, Any], problems: Problems) -> None:
    for key in content:
        if key in KEYS:
            continue
        if is_axis_name(canonical_name(str(key))):
            problems.add(f"{key!r} stands at the top.", f"Put {key} under base: or axes:", code="unknown_parameter")
            continue
        near = difflib.get_close_matches(str(key).lower(), KEYS, n=1)
        advice = f" Did you mean {near[0]!r}?" if near else ""
        remedy = f"Use {near[0]!r} instead of {key!r}" if near else f"Use some of {', '.join(KEYS)}"
        problems.add(f"Unknown key {key!r}.{advice}", remedy, code="unknown_parameter")
    version = content.get("schemaVersion", SCHEMA_VERSION)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        problems.add(f"schemaVersion is {version!r}, this vidkit reads up to {SCHEMA_VERSION}.", "Update vidkit")


def read_name(given: Any, path: Path, problems: Problems) -> str:
    name = read_text("name", given, problems) or path.stem
    if (
        len(name) > 100
        or any(char in '/\\:*?"<>|' or not char.isprintable() for char in name)
        or name.strip(". ") == ""
    ):
        problems.add(f"name is {name[:120]!r}, which cannot name a folder.", "Use letters, digits, spaces, - and _")
    return name


def read_text(key: str, given: Any, problems: Problems) -> str:
    if given is not None and not isinstance(given, str):
        problems.add(f"{key} is {given!r}, not a text.", f"Put {key} in quotes", code="invalid_value")
    return given if isinstance(given, str) else ""


def read_notebook(given: Any, path: Path, problems: Problems) -> Path:
    wanted = read_text("notebook", given, problems)
    try:
        notebook = path.absolute().parent / local_path(wanted) if wanted else default_notebook()
    except InputError as error:
        problems.add_error("notebook", error)
        return default_notebook()
    if not notebook.is_file() or notebook.suffix != ".ipynb":
        state = "is no .ipynb file" if notebook.exists() else "does not exist"
        problems.add(
            f"The notebook {wanted or notebook} {state}; it is looked for beside {path.name}.",
            "Check the path of the notebook, or leave notebook out: vidkit has one of its own",
        )
    return notebook


def read_repeats(given: Any, problems: Problems) -> int:
    if given is None:
        return 1
    if type(given) is not int or not 1 <= given <= MAX_POINTS:
        problems.add(
            f"repeats is {given!r}.", f"Set repeats to a whole number from 1 to {MAX_POINTS:,}", code="out_of_range"
        )
        return 1
    return given


def as_mapping(key: str, given: Any, problems: Problems) -> Mapping[Any, Any]:
    if given is not None and not isinstance(given, dict):
        problems.add(f"{key} is {given!r:.80}, not names and values.", f"Write {key}: and below it NAME: VALUE")
    return given if isinstance(given, dict) else {}


def read_base(given: Any, problems: Problems) -> dict[str, Any]:
    """The known parameters of `base:`, nulls left out."""
    base: dict[str, Any] = {}
    for key, value in as_mapping("base", given, problems).items():
        name = canonical_name(str(key))
        if name in NOT_IN_A_SWEEP:
            problems.add(not_in_a_sweep(f"base: {key}"), f"Leave {key} out")
        elif is_replacement(name):
            problems.add(f"base: {key} is an axis.", f"Put {key} under axes:")
        elif name not in GenerationParams.model_fields:
            problems.add_error("base", unknown_key(str(key)))
        elif name in base:
            problems.add(f"base: {key} is given twice, in two spellings.", f"Give {name} once", code="invalid_value")
        elif value is not None:
            base[name] = value
    return base


def read_axes(given: Any, base: Mapping[str, Any], problems: Problems) -> tuple[dict[str, list[Any]], list[str]]:
    """Expanded axes in the written order; and the names of those that could not be expanded."""
    axes: dict[str, list[Any]] = {}
    failed: list[str] = []
    for key, written in as_mapping("axes", given, problems).items():
        name = axis_name(str(key))
        if name in NOT_IN_A_SWEEP or name == "schema_version":
            problems.add(not_in_a_sweep(f"axis {key}"), f"Leave {key} out")
        elif not is_axis_name(name):
            problems.add_error("axes", unknown_axis(str(key)))
        elif name in axes or name in failed:
            problems.add(f"axis {key} is given twice, in two spellings.", f"Give {name} once", code="invalid_value")
        else:
            if name in base:
                problems.add(f"{key} is both an axis and in base.", f"Take {key} out of base:", code="invalid_value")
            values = read_axis(f"axis {key}", name, written, problems)
            if values:
                axes[name] = values
            else:
                failed.append(name)
    return axes, failed


def read_axis(where: str, name: str, written: Any, problems: Problems) -> list[Any]:
    """The values, or [] and a problem."""
    try:
        values = [] if written is None else expand(name, written)
    except InputError as error:
        problems.add_error(where, error)
        return []
    if not values:
        problems.add(f"{where} has no values.", f"Give values, or take {name} out", code="invalid_value")
    return values


def axis_name(key: str) -> str:
    return key.replace("promptSr", REPLACEMENT, 1) if key.startswith("promptSr") else canonical_name(key)


def unknown_axis(key: str) -> InputError:
    if difflib.SequenceMatcher(None, key.lower().replace("_", ""), "promptsr").ratio() > 0.8:
        message = f"Unknown parameter {key!r}. Did you mean {REPLACEMENT!r}?"
        return InputError("unknown_parameter", message, [f"Use {REPLACEMENT!r} instead of {key!r}"])
    return unknown_key(key)


def not_in_a_sweep(what: str) -> str:
    return f"{what} has no place in a sweep, which writes each clip into a folder of its own."


def read_zips(
    given: Any, axes: Mapping[str, Sequence[Any]], known: Sequence[str], problems: Problems
) -> list[tuple[str, ...]]:
    """Groups of axes that advance together; a single group may stand without its outer list."""
    if given is not None and not isinstance(given, list):
        problems.add(f"zip is {given!r:.80}, not a list of groups.", "Write zip: [[width, height]]")
    groups = given if isinstance(given, list) else []
    if groups and not any(isinstance(group, list) for group in groups):
        groups = [groups]
    good: list[tuple[str, ...]] = []
    for group in groups:
        names = [axis_name(str(name)) for name in group] if isinstance(group, list) else []
        taken = [name for zipped in good for name in zipped]
        if check_zip(group, names, taken, known, problems) and check_lengths(names, axes, problems):
            good.append(tuple(names))
    return good


def check_zip(group: Any, names: list[str], taken: list[str], known: Sequence[str], problems: Problems) -> bool:
    strangers = [name for name in names if name not in known]
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1 or name in taken]
    if strangers:
        problems.add(f"zip names {some(strangers)}, which is no axis.", f"Axes are {', '.join(known) or 'none'}")
    if doubled:
        problems.add(f"zip has {some(doubled)} twice.", "Give each axis to one group")
    if len(names) < 2:
        problems.add(f"zip has {group!r:.80}, which is no group of axes.", "Give two axes or more to each group")
    return not strangers and not doubled and len(names) > 1


def check_lengths(names: Sequence[str], axes: Mapping[str, Sequence[Any]], problems: Problems) -> bool:
    """A group that has an axis without known values is good as far as one can tell, but no group to work with."""
    lengths = {name: len(axes[name]) for name in names if name in axes}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        problems.add(f"zip: axes that advance together need as many values each: {listed}.", "Make them equally long")
        return False
    return len(lengths) == len(names)


def read_excludes(given: Any, known: Sequence[str], problems: Problems) -> list[dict[str, list[Any]]]:
    if given is not None and not isinstance(given, list):
        problems.add(f"exclude is {given!r:.80}, not a list.", "Write exclude: [{width: 128, height: 64}]")
    excludes = []
    for number, mapping in enumerate(given if isinstance(given, list) else [], 1):
        where = f"exclude {number}"
        if not isinstance(mapping, dict) or not mapping:
            problems.add(f"{where} is {mapping!r:.80}, not axes and values.", "Write {width: 128, height: 64}")
            continue
        names = [axis_name(str(key)) for key in mapping]
        strangers = [name for name in names if name not in known]
        if strangers:
            problems.add(
                f"{where} names {some(strangers)}, which is no axis.", f"Axes are {', '.join(known) or 'none'}"
            )
            continue
        values = [read_axis(where, name, value, problems) for name, value in zip(names, mapping.values(), strict=True)]
        if all(values):
            excludes.append(dict(zip(names, values, strict=True)))
    return excludes
