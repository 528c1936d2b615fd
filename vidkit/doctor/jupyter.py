"""Jupyter: its versions, pairs of them that are known not to work together, and which JupyterLab would be started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet

from vidkit.doctor.packages import version_of
from vidkit.finding import Finding, note, ok, problem

TOPIC: Final = "Jupyter"
PACKAGES: Final = (
    "jupyterlab",
    "notebook",
    "ipykernel",
    "ipywidgets",
    "jupyterlab_widgets",
    "anywidget",
    "jupyter_client",
    "nbclient",
    "papermill",
)


@dataclass(frozen=True)
class BadPair:
    """versions: by package; what: they do together; remedy: what pip is to install; source: the issues about it."""

    versions: Mapping[str, str]
    what: str
    remedy: str
    source: str


#: The libraries' own issue trackers tell of each; `packages` finds what their metadata rule out.
BAD_PAIRS: Final = (
    BadPair(
        {"ipykernel": ">=7.0,<7.1", "ipywidgets": ">=7"},
        "Widgets that a thread changes stay as they were, so the panel shows no progress.",
        "ipykernel>=7.1",
        "ipywidgets#4001, ipykernel#1450",
    ),
    BadPair(
        {"ipywidgets": ">=8", "jupyterlab_widgets": "<3"},
        "JupyterLab shows 'Error displaying widget: model not found'.",
        "jupyterlab_widgets>=3.0.15",
        "ipywidgets#3577",
    ),
    BadPair(
        {"ipywidgets": "<8", "jupyterlab_widgets": ">=3"},
        "JupyterLab shows 'Error displaying widget: model not found'.",
        "ipywidgets>=8.1",
        "ipywidgets#3577",
    ),
    BadPair(
        {"jupyterlab": ">=4", "jupyterlab_widgets": "<3"},
        "The widgets' extension is for JupyterLab 3, and is not loaded.",
        "jupyterlab_widgets>=3.0.15",
        "ipywidgets#3823",
    ),
)


def findings() -> Iterator[Finding]:
    here = {name: version for name in PACKAGES if (version := version_of(name)) is not None}
    told = ", ".join(f"{name} {version}" for name, version in here.items()) or "none of its packages"
    missing = [name for name in ("ipykernel", "ipywidgets", "papermill") if name not in here]
    bad = [pair for pair in BAD_PAIRS if is_here(pair, here)]
    if missing:
        yield problem(
            TOPIC,
            f"{told}. {', '.join(missing)} is missing: no panel, no sweep. The command line makes clips without it.",
            pip(" ".join(missing)),
            versions=here,
        )
    elif "jupyterlab" not in here:
        yield note(
            TOPIC,
            f"{told}. Without JupyterLab in this environment the panel needs another front end (VS Code, JupyterLab of "
            "another environment with jupyterlab_widgets and anywidget).",
            pip("jupyterlab"),
            versions=here,
        )
    elif not bad:
        yield ok(TOPIC, f"{told}.", versions=here)
    for pair in bad:
        what = ", ".join(f"{name} {here[name]}" for name in pair.versions)
        yield problem(TOPIC, f"{what}: {pair.what} ({pair.source})", pip(f'"{pair.remedy}"'), versions=here)
    yield from another_one(here)


def is_here(pair: BadPair, here: Mapping[str, str]) -> bool:
    return all(
        name in here and SpecifierSet(versions).contains(here[name], prereleases=True)
        for name, versions in pair.versions.items()
    )


def another_one(here: Mapping[str, str]) -> Iterator[Finding]:
    """The `jupyter` that the shell finds may be of an environment that has no vidkit."""
    program = shutil.which("jupyter-lab") or shutil.which("jupyter")
    own = (
        {Path(folder).resolve() for folder in (sys.prefix, sys.base_prefix)}
        if sys.prefix == sys.base_prefix
        else {Path(sys.prefix).resolve()}
    )
    if program is None or "jupyterlab" not in here or any(Path(program).resolve().is_relative_to(one) for one in own):
        return
    yield note(
        TOPIC,
        f"The command `{Path(program).name}` starts another environment's: {program}.",
        f"Start this one's: {sys.executable} -m jupyterlab",
    )


def pip(packages: str) -> str:
    return f"{sys.executable} -m pip install {packages}"
