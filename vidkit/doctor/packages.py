"""Installed packages against what vidkit, and what it needs in turn, asks of them."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from vidkit.finding import Finding, note, ok, problem

TOPIC: Final = "packages"

#: those whose versions a report of a defect should tell
TOLD: Final = ("diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub", "numpy", "Pillow")


@dataclass(frozen=True)
class Unmet:
    """A package that is missing (`found` is ""), or of a version that another one does not take."""

    wanted_by: str
    requirement: str
    name: str
    found: str


def findings() -> Iterator[Finding]:
    here = {name: version for name in TOLD if (version := version_of(name)) is not None}
    told = ", ".join(f"{name} {version}" for name, version in here.items())
    try:
        unmet = list(unmet_requirements("vidkit"))
    except importlib.metadata.PackageNotFoundError:
        yield note(TOPIC, f"vidkit runs without being installed, so no ranges are known. Here: {told}.", versions=here)
        return
    if not unmet:
        yield ok(TOPIC, f"All are in the ranges that are asked for: {told}.", versions=here)
    for one in unmet:
        what = f"{one.wanted_by} asks for {one.requirement}; here is {one.found or 'none'}."
        command = f'{sys.executable} -m pip install "{one.requirement}"'
        if one.wanted_by == "vidkit":
            yield problem(TOPIC, what, command, stops=not one.found, versions=here)
        else:
            yield note(TOPIC, what, command, versions=here)


def version_of(name: str) -> str | None:
    """Of an installed package; None: there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def unmet_requirements(package: str) -> Iterator[Unmet]:
    """Of a package, of those that it needs, and of those that these need, as `pip check` finds them.

    Raises:
        PackageNotFoundError: it is not installed itself.
    """
    waiting, seen = [package], {canonicalize_name(package)}
    importlib.metadata.distribution(package)
    while waiting:
        name = waiting.pop()
        for requirement in requirements_of(name):
            found = version_of(requirement.name)
            if found is None or not takes(requirement, found):
                yield Unmet(name, f"{requirement.name}{requirement.specifier}", requirement.name, found or "")
            wanted = canonicalize_name(requirement.name)
            if found is not None and wanted not in seen:
                seen.add(wanted)
                waiting.append(requirement.name)


def requirements_of(package: str) -> Iterator[Requirement]:
    """Those that hold on this machine, extras left out."""
    for text in importlib.metadata.requires(package) or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # old packages wrote what is none; pip passes over it, too
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def takes(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False
