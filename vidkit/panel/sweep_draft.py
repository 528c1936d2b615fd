"""A sweep made of the present settings: which axes it may have and what values to begin with, its plan, its YAML file.

Loads neither widgets nor torch.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from vidkit.errors import InputError, VidkitError
from vidkit.files import typed_write_errors
from vidkit.lora_list import LORAS, LoraEntry, loras_text, parse_loras, quoted_name
from vidkit.panel.estimate import work
from vidkit.panel.model_list import found_models, why_not
from vidkit.panel.outlook import Outlook
from vidkit.params import (
    GenerationParams,
    Limits,
    bounds_of,
    choices_of,
    group_of,
    is_used,
    nearest_multiple,
    plain_type,
)
from vidkit.runs.folder import FOLDER_NAME
from vidkit.settings import Settings, home, load_settings
from vidkit.sweep.axes import PROMPTS, REPLACEMENT, expand
from vidkit.sweep.check import MODELS, PICTURES, placed
from vidkit.sweep.dry_run import in_words
from vidkit.sweep.plan import Plan, make_plan
from vidkit.sweep.sweep_file import NOT_IN_A_SWEEP

#: a name is a file and a folder; it begins with no dot, or the history would not look into it
GOOD_NAME: Final = re.compile(r"\w[\w +.,=-]{0,98}[\w+=-]|\w")
LONGEST_PROPOSED: Final = 60
#: `work` of a request: what its seconds grow with
SIZES: Final = ("width", "height")


@dataclass(frozen=True)
class SweepDraft:
    """params: what all points share; axes: values as written, in the short forms of a sweep file, by parameter."""

    params: GenerationParams
    axes: Mapping[str, str]
    name: str

    @property
    def file_name(self) -> str:
        return f"{self.name}.yaml"

    def text(self, settings: Settings | None = None) -> str:
        """The sweep file. Paths are absolute: relative ones are meant from the folder where the panel is."""
        settings = settings or load_settings()
        base = self.params.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        for name in ("schema_version", *NOT_IN_A_SWEEP, *self.axes):
            base.pop(name, None)
        if base.get("seed") == -1:  # to be drawn, as without it
            del base["seed"]
        base = {name: placed(name, value, Path.cwd(), settings) for name, value in base.items()}
        axes = {name: axis_written(name, values, settings) for name, values in self.axes.items()}
        lines = [f"# Written by vidkit's panel.  vidkit sweep {self.file_name} --dry-run", f"name: {quoted(self.name)}"]
        for key, content in (("base", base), ("axes", axes)):
            lines += [f"{key}:", *(f"  {name}: {quoted(value)}" for name, value in content.items())] if content else []
        return "\n".join(lines) + "\n"


def axis_written(name: str, values: str, settings: Settings) -> str | list[Any]:
    """As the user wrote it; pictures and models one by one, each with its place made absolute."""
    if name not in (*PICTURES, *MODELS):
        return values
    return [placed(name, value, Path.cwd(), settings) for value in expand(name, values)]


class _Quoted(yaml.SafeDumper):
    """Quotes every text: 1e3, no and 1:30 are texts here and numbers or no-es in one YAML or another."""


_Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def quoted(value: Any) -> str:
    """A value as YAML in one line, however long."""
    text: str = yaml.dump(value, Dumper=_Quoted, allow_unicode=True, width=2**31, default_flow_style=True)
    return text.removesuffix("...\n").strip("\n")


# --- axes


def axis_names(params: GenerationParams) -> list[str]:
    """What can be an axis: what the family uses, in the schema's order, and search and replace in its prompt."""
    names = [
        name
        for name in GenerationParams.model_fields
        if name not in NOT_IN_A_SWEEP
        and group_of(name) != "hidden"
        and is_used(name, params.pipeline, params.conditioning)
    ]
    return [*names, REPLACEMENT] if "prompt" in names else names


def proposed_values(name: str, outlook: Outlook, settings: Settings) -> str:
    """Values to begin with, around the present one, as the model takes them; "" where only the user can know."""
    params = outlook.resolved.params if outlook.resolved is not None else outlook.params
    if name == "seed":
        return "random [4]"
    if name == REPLACEMENT:
        return f"{params.prompt.split()[0]}, "
    value, info = getattr(params, name), GenerationParams.model_fields[name]
    if choices := choices_of(info):
        return ", ".join(sorted(choices, key=lambda choice: choice != value))
    if name in SIZES:
        return sizes(name, value, outlook.limits)
    kind = plain_type(info)
    if kind in (int, float):
        return spread(value, *bounds(name, outlook.limits), whole=kind is int)
    if kind is bool:
        return "false, true"
    if name in PROMPTS:
        return f"{value} || " if value else ""
    if name in MODELS:
        return proposed_models(name, value, params, settings)
    return listed([value]) if value else ""


def proposed_models(name: str, value: str | None, params: GenerationParams, settings: Settings) -> str:
    """Those that go with the request; the present LoRAs with other weights, where there are some."""
    if name == LORAS and value:
        return lora_strengths(value)
    fit = [one.name for one in found_models(settings) if one.role == name and not why_not(one, params, settings)]
    if name == LORAS:
        return " || ".join(map(quoted_name, fit))
    return listed(dict.fromkeys([value, *fit] if value else fit))


def lora_strengths(value: str) -> str:
    """Without the present LoRAs, with half of their weights, and with all of them."""
    shares = (0.0, 0.5, 1.0)
    entries = parse_loras(value)
    return " || ".join(loras_text(LoraEntry(one.name, one.weight * share) for one in entries) for share in shares)


def bounds(name: str, limits: Limits | None) -> tuple[float, float]:
    """The model's, else the schema's."""
    if limits is not None and name in limits.ranges:
        return limits.ranges[name]
    found = bounds_of(GenerationParams.model_fields[name])
    return found.get("ge", found.get("gt", 0)), found.get("le", found.get("lt", 100))


def spread(value: float | None, low: float, high: float, *, whole: bool) -> str:
    """Three values, the middle one about the present one: 127 gives 40..200 [3]."""
    start, end = (one_digit(value / 3), one_digit(value * 5 / 3)) if value and value > 0 else (low, high)
    start, end = max(start, low), min(end, high)
    if whole and end - start < 2:
        return ", ".join(f"{number:g}" for number in sorted({round(start), round(end)}))
    return f"{start:g}..{end:g} [3]" if end > start else f"{value:g}"


def one_digit(value: float) -> float:
    return float(f"{value:.1g}")


def sizes(name: str, value: int | None, limits: Limits | None) -> str:
    """The present side, a smaller and a larger one, that the model can make."""
    if value is None or limits is None:
        return ""
    wanted = [round(value * factor) for factor in (0.5, 1, 1.5)]
    sides = {nearest_multiple(side, limits.size_multiple, limits.ranges.get(name)) for side in wanted}
    return ", ".join(str(side) for side in sorted(sides))


def listed(texts: Sequence[str] | Mapping[str, Any]) -> str:
    """Texts between commas, those that hold commas themselves in quotes."""
    return ", ".join('"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text for text in texts)


# --- plan


def plan_draft(draft: SweepDraft, runs: Path) -> Plan:
    """Everything checked, nothing kept; some milliseconds, for thousands of points up to a second.

    Raises:
        InputError, SetupError: all that is wrong, as `vidkit sweep` would say it.
    """
    check_name(draft.name)
    with tempfile.TemporaryDirectory(prefix="vidkit-sweep-") as temporary:
        file = Path(temporary) / draft.file_name
        file.write_text(draft.text(), encoding="utf-8")
        root = runs / draft.name
        return make_plan(file, root if root.is_dir() else None)


def seconds_of(plan: Plan, seconds: float | None, resolved: GenerationParams | None) -> float | None:
    """How long all points take: each as the present settings (seconds), by its steps, frames and pixels."""
    if seconds is None:
        return None
    present = resolved.to_record() if resolved is not None else {}
    usual = work(present)
    if not usual:
        return seconds * len(plan.points)
    total = 0.0
    for point in plan.points:
        given = {name: value for name, value in point.params.to_record().items() if value is not None}
        total += seconds * work(present | given) / usual
    return total


def plan_in_words(plan: Plan, seconds: float | None) -> str:
    """seconds: for all points together, None when it is not known."""
    axes = " x ".join(f"{name} {len(values):,}" for name, values in plan.axes.items())
    count = f"{len(plan.points):,} point{'' if len(plan.points) == 1 else 's'} ({axes})"
    loads = f" Models are loaded {plan.loads:,} times." if plan.loads > 1 else ""
    if seconds is None:
        return f"{count}; how long it takes is known after the first clip of this model.{loads}"
    return f"{count}; about {in_words(seconds)}.{loads}"


def problem_lines(error: VidkitError, source: str) -> list[str]:
    """What is wrong, one line each, without the name of the file that nobody has seen yet."""
    lines = [line.removeprefix(f"{source}: ").removeprefix("- ") for line in error.message.split("\n")]
    return lines[1:] if len(lines) > 1 and lines[0].startswith(source) else lines


# --- file


def parameters_folder(start: Path) -> Path:
    """Where sweep files go: `parameters` in this folder or the one above, if there is one; else vidkit's own."""
    found = (folder / "parameters" for folder in (start, start.parent))
    return next((folder for folder in found if folder.is_dir()), home() / "parameters")


def proposed_name(axes: Sequence[str] | Mapping[str, Any]) -> str:
    return "_".join(["sweep", *axes])[:LONGEST_PROPOSED].rstrip("_")


def with_free_name(draft: SweepDraft, folder: Path, runs: Path) -> SweepDraft:
    """The draft under its own name, or NAME-2 and so on: the first that belongs to no other sweep."""
    match = re.fullmatch(r"(.*?)(?:-(\d{1,6}))?", draft.name)
    stem, number = (match[1], int(match[2] or 1)) if match else (draft.name, 1)
    while is_anothers(draft, folder, runs):
        number += 1
        draft = replace(draft, name=f"{stem}-{number}")
    return draft


def is_anothers(draft: SweepDraft, folder: Path, runs: Path) -> bool:
    """Whether its file or its folder of runs is there already, and not for this very sweep."""
    file = folder / draft.file_name
    if file.exists():
        return not is_same(file, draft)
    return (runs / draft.name).exists()


def is_same(file: Path, draft: SweepDraft) -> bool:
    try:
        return file.read_text(encoding="utf-8") == draft.text()
    except (OSError, UnicodeDecodeError, VidkitError):
        return False


def write_draft(draft: SweepDraft, folder: Path, runs: Path) -> Path:
    """Write the sweep's file; the same file again is left as it is, another one is never replaced.

    Raises:
        InputError: `output_exists`; `invalid_value`, for a name that is none. SetupError: `output_not_writable`.
    """
    check_name(draft.name)
    file = folder / draft.file_name
    if is_anothers(draft, folder, runs):
        there = file if file.exists() else runs / draft.name
        raise InputError("output_exists", f"{there} is there already, of another sweep.", ["Choose another name"])
    with typed_write_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with file.open("x", encoding="utf-8") as opened:
                opened.write(draft.text())
    return file


def check_name(name: str) -> None:
    if not GOOD_NAME.fullmatch(name) or FOLDER_NAME.fullmatch(name):
        raise InputError(
            "invalid_value",
            f"{name[:120]!r} cannot name a sweep: it names a file and a folder.",
            ["Use letters, digits, spaces, - and _"],
        )
