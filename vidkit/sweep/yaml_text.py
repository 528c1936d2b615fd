"""YAML as its users mean it: version 1.2's plain values, and no silent loss.

PyYAML reads YAML 1.1, where `no` is false, 1:30 is 90, 010 is 8, 1e3 is a text, a date is an object, and the second of
two equal keys wins.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from vidkit.errors import InputError

_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")


class Loader(yaml.SafeLoader):
    """Collects its complaints in `problems`, each after its line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[tuple[int, str]] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                self.complain(key, f"{key.value!r} stands there a second time, after line {lines[key.value]}")
        return node

    def complain(self, node: yaml.Node, complaint: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append((line, f"line {line}: {complaint}"))

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if _LEADING_ZERO.fullmatch(node.value):
            self.complain(node, f"{node.value} begins with 0, which some read as octal; write it without")
        return float(node.value) if re.search("[.eE]", node.value) else int(node.value)


def _resolve(tag: str, pattern: str, first: str) -> None:
    Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})$"), list(first))


Loader.yaml_implicit_resolvers = {}
_resolve("tag:yaml.org,2002:bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("tag:yaml.org,2002:null", "~|null|Null|NULL|", "~nN")
Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("$"), [""])
_resolve("tag:yaml.org,2002:merge", "<<", "<")
_resolve("!number", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?", "-+.0123456789")
Loader.add_constructor("!number", Loader.construct_number)


def read_yaml(text: str) -> tuple[Any, list[str]]:
    """The document, and what is wrong in it though it can be read.

    Raises:
        InputError: `invalid_request`, when it is not YAML, with the line.
    """
    loader = None
    try:
        loader = Loader(text)
        data = loader.get_single_data()
        return data, [complaint for _, complaint in sorted(loader.problems)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"line {mark.line + 1}: {error.problem}" if mark else str(error.problem)
        raise InputError("invalid_request", f"it is not YAML ({reason}).", ["Put texts in quotes"]) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # odd characters, huge numbers, ...
        reason = " ".join(str(error).split())[:200]
        raise InputError("invalid_request", f"it is not YAML ({reason}).", ["Mend or rewrite the file"]) from error
    finally:
        if loader is not None:
            loader.dispose()
