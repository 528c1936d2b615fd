"""What a setting is: a field with its meaning and, where it has one, its environment variable.

A class of settings is a `Part`; a setting is one line in it, `setting(DEFAULT, MEANING, VARIABLE)`. Its key in
config.json is its camelCase name, with dots through the parts.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from vidkit.paths import path_list

#: JSON schema's words for types -> ours
TYPES: Final = {
    "string": "text",
    "path": "a path",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "a JSON object",
}


class Part(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", allow_inf_nan=False
    )


def setting(default: Any, meaning: str, variable: str = "", *, in_file: bool = True, changed_by: str = "") -> Any:
    """A field of a `Part`.

    Args:
        default: a value, or a function that gives it.
        meaning: for a person, one sentence: `vidkit config` shows it.
        variable: the environment variable that comes before config.json.
        in_file: whether it may stand in config.json.
        changed_by: what changes it in config.json, where `vidkit config` must not.
    """
    ours: JsonDict = {"variable": variable, "in_file": in_file, "changed_by": changed_by}
    if callable(default):
        return Field(default_factory=default, description=meaning, json_schema_extra=ours)
    return Field(default, description=meaning, json_schema_extra=ours)


def plain_number(value: Any) -> Any:
    """True and False would pass for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


#: whatever case it is written in
UpperCase = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
LowerCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
PlainNumber = BeforeValidator(plain_number)


@dataclass(frozen=True)
class Entry:
    """One setting of the schema. path: its field's name, after those of the parts it is in."""

    path: tuple[str, ...]
    field: FieldInfo

    @functools.cached_property
    def key(self) -> str:
        """As it is called in config.json: `limits.time`."""
        return ".".join(to_camel(name) for name in self.path)

    @property
    def meaning(self) -> str:
        return self.field.description or ""

    @property
    def variable(self) -> str:
        return str(self._ours["variable"])

    @property
    def in_file(self) -> bool:
        return bool(self._ours["in_file"])

    @property
    def changed_by(self) -> str:
        return str(self._ours["changed_by"])

    @property
    def default(self) -> Any:
        return self.field.get_default(call_default_factory=True, validated_data={})

    @property
    def values(self) -> str:
        """What it may be, in words that go on from "is" or "not"."""
        return in_words(self._schema)

    @property
    def has_keys(self) -> bool:
        """Whether its value is an object, whose keys are set one by one: `defaultModels.svd`."""
        return self._schema.get("type") == "object"

    def from_text(self, text: str) -> Any:
        """The value that a text of the environment or of the command line means; lists are written as PATH is."""
        kind = self._schema.get("type")
        if kind in ("array", "object") and text.lstrip()[:1] in ("[", "{"):
            return parsed(text)
        return path_list(text) if kind == "array" else text

    @functools.cached_property
    def _schema(self) -> dict[str, Any]:
        """JSON schema of its values; None apart."""
        annotation: Any = self.field.annotation
        for metadata in self.field.metadata:
            annotation = Annotated[annotation, metadata]
        schema = TypeAdapter(annotation).json_schema()
        others = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
        return others[0] if others else schema

    @property
    def _ours(self) -> dict[str, Any]:
        ours = self.field.json_schema_extra
        return ours if isinstance(ours, dict) else {"variable": "", "in_file": True, "changed_by": ""}


def entries(part: type[Part], above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """All settings of a part and of those in it."""
    for name, field in part.model_fields.items():
        inner = part_in(field)
        if inner is not None:
            yield from entries(inner, (*above, name))
        else:
            yield Entry((*above, name), field)


def part_in(field: FieldInfo) -> type[Part] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Part) else None


def in_words(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if schema.get("type") == "array":
        return f"a list of {in_words(schema.get('items', {})).removeprefix('a ')}s"
    words = TYPES.get(schema.get("format", ""), TYPES.get(schema.get("type", ""), "a value"))
    limits = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    bounds = [f"{told} {schema[name]:.15g}" for name, told in limits.items() if name in schema]
    return words + (f" of {' and '.join(bounds)}" if bounds else "")


def parsed(text: str) -> Any:
    """JSON, or the text where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def nearest(name: str, names: list[str]) -> str | None:
    """The name that a mistyped one is most like, whatever its case and separators; None: none is."""
    folded = {fold(known): known for known in names}
    near = difflib.get_close_matches(fold(name), list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
