"""A point that runs on a machine which does not see the sweep's folder: what it needs is sent, what it made comes back.

The side that sees the folder holds the point's claim all the while.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vidkit.confinement import temporary_parent
from vidkit.files import typed_write_errors
from vidkit.runs import write_failure, write_manifest
from vidkit.settings import load_settings
from vidkit.sweep.execute import Outcome, Task, run_task

PICTURES = ("image_path", "last_image_path")


def picture_paths(task: Task) -> dict[str, str]:
    """The point's own pictures by parameter; a bundled one is on every machine."""
    given = {name: getattr(task.params, name, None) for name in PICTURES}
    return {name: path for name, path in given.items() if path is not None and Path(path).is_file()}


def to_send(task: Task) -> dict[str, bytes]:
    """The contents of the notebook and the pictures, by their path here."""
    return {path: Path(path).read_bytes() for path in {str(task.notebook), *picture_paths(task).values()}}


def run_away(task: Task, sent: Mapping[str, bytes]) -> tuple[Outcome, dict[str, bytes]]:
    """Run a point in a folder of this machine; its run folder's files by name. Raises as `run_task`."""
    with tempfile.TemporaryDirectory(prefix="vidkit-ray-", dir=temporary_parent(load_settings())) as temporary:
        here = moved(task, sent, Path(temporary))
        outcome = run_task(here)
        return outcome, {file.name: file.read_bytes() for file in here.folder.path.iterdir() if file.is_file()}


def moved(task: Task, sent: Mapping[str, bytes], folder: Path) -> Task:
    """The task with all that was sent in this folder. Names stay: a clip's record tells its picture's."""
    places = {path: folder / str(number) / Path(path).name for number, path in enumerate(sent)}
    for path, place in places.items():
        place.parent.mkdir()
        place.write_bytes(sent[path])
    given = {name: getattr(task.params, name, None) for name in PICTURES}
    pictures = {name: str(places[path]) for name, path in given.items() if path in places}
    return dataclasses.replace(
        task,
        root=folder / "runs",
        notebook=places[str(task.notebook)],
        params=task.params.replace(**pictures),
        failures=0,  # that folder knows of none
    )


def keep_run(task: Task, outcome: Outcome, files: Mapping[str, bytes]) -> None:
    """Bring a run that came back into the sweep's folder. Hold its claim.

    Raises:
        CriticalError: `disk_full`; SetupError: `output_not_writable`.
    """
    folder = task.folder
    document = folder.manifest.name if outcome.state == "done" else folder.failure.name
    content = json.loads(files[document]) | {"attempts": task.failures + 1}
    with typed_write_errors(folder.path):
        for name, data in files.items():
            if name != document:
                (folder.path / name).write_bytes(data)
    if outcome.state == "done":
        write_manifest(folder, content)
    else:
        write_failure(folder, content | {"request": task.params.to_wire()})  # without the other machine's paths
