"""One clip of the panel as a run: a folder named by its content key, made once, done when its manifest is there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vidkit.confinement import check_allowed, real_output
from vidkit.errors import InputError, Remedy, VidkitError
from vidkit.files import typed_write_errors, written_whole
from vidkit.panel.original_pictures import remember_picture
from vidkit.params import GenerationParams
from vidkit.paths import path_to_write
from vidkit.progress import CancelToken, OnPreview, OnProgress, Progress
from vidkit.record import content_of, key_of, versions
from vidkit.resolving import resolve_request
from vidkit.runs import Claim, RunFolder, Seen, claim, read_manifest, write_manifest
from vidkit.runs.finished import finished_content
from vidkit.settings import load_settings
from vidkit.video import check_target, poster, read_frames, sidecar_path

#: of asking again for a clip that another process makes
POLL_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Planned:
    """A request before its clip is made. params: as given, its seed drawn; content: of its record, decides the key."""

    params: GenerationParams
    resolved: GenerationParams
    content: Mapping[str, Any]

    @property
    def key(self) -> str:
        return key_of(self.content)


def run_clip(
    params: GenerationParams,
    root: Path,
    *,
    on_progress: OnProgress | None = None,
    on_preview: OnPreview | None = None,
    cancel: CancelToken | None = None,
) -> tuple[RunFolder, bool]:
    """Make a request's clip in its run folder in `root`; whether it was there already, or has come while waiting.

    `output_path` gets a copy when the run is done. Arguments and errors as `vidkit.generate`; also InputError
    `output_exists` for a clip that is to be `bare` and is there already with its settings in it.
    """
    cancel = cancel or CancelToken()
    planned = plan(params)
    publishing = path_to_write(params.output_path, ["output_path"]) if params.output_path else None
    if publishing is not None:
        publishing = real_output(publishing, load_settings())
        check_target(publishing, overwrite=params.overwrite)  # before the work, not after it
    with claimed(root, planned.key, on_progress, cancel) as ours:
        run, known = ours.run, ours.state == "done"
        if known:
            check_bareness(run, params)
        else:
            make(planned, run, on_progress, on_preview, cancel)
    if publishing is not None:
        check_allowed(publishing, load_settings(), "output_path", params.output_path)  # a folder may be a link by now
        publish(clip_of(run), publishing, overwrite=params.overwrite)
    return run, known


def plan(params: GenerationParams) -> Planned:
    """Find and hash what a request names. Raises InputError, SetupError, as `vidkit.runs.content_key`."""
    seen = Seen()
    found = resolve_request(params, seen.settings, seen.models(params))
    pictures = [seen.picture(path) for path in found.pictures]
    for wanted, identity in zip((params.image_path, params.last_image_path), pictures, strict=False):
        remember_picture(wanted or "", identity, seen.settings)
    models, checker = seen.identities(found.params, found.models), found.screening.to_record()
    content = content_of(found.params, models=models, pictures=pictures, safety_checker=checker)
    return Planned(params.replace(seed=found.params.seed), found.params, content)


@contextmanager
def claimed(root: Path, key: str, on_progress: OnProgress | None, cancel: CancelToken) -> Iterator[Claim]:
    """The run, ours to make or done; while another process makes it, wait for that.

    Raises:
        Cancelled: while waiting.
    """
    told = False
    while True:
        cancel.check()
        # a failure on record, which a sweep has left in this folder, is no reason not to try
        with claim(root, key, failures=RunFolder(root, key).attempts()) as ours:
            if ours.state in ("ours", "done"):
                yield ours
                return
        if on_progress is not None and not told:
            on_progress(Progress(0, "Waiting: another process is making this very clip..."))
            told = True
        time.sleep(POLL_SECONDS)


def make(
    planned: Planned, run: RunFolder, on_progress: OnProgress | None, on_preview: OnPreview | None, cancel: CancelToken
) -> None:
    """The clip, its poster and, last, its manifest; we hold the claim."""
    from vidkit.generation import generate

    started, since = datetime.now(UTC), time.monotonic()
    clip = run.clip(planned.resolved.output_format or "mp4")
    request = planned.params.replace(
        output_path=str(clip), output_format=planned.resolved.output_format, overwrite=True
    )
    result = generate(request, on_progress=on_progress, on_preview=on_preview, cancel=cancel)
    if not planned.params.bare and key_of(result.record) != planned.key:
        raise InputError(
            "invalid_request",
            "The clip is another than was asked for: its picture or a model was changed while it was made.",
            ["Run it again"],
        )
    with typed_write_errors(run.poster):
        poster(read_frames(clip)).save(run.poster)
    content = finished_content(
        planned.params,
        {**planned.content, "versions": versions(), **result.record},  # a bare clip's record says nothing
        result.metadata,
        seconds=time.monotonic() - since,
        files={"clip": clip.name, "poster": run.poster.name},
    )
    bare = {"bare": True} if planned.params.bare else {}
    write_manifest(run, {"key": planned.key, "started": started.isoformat(), **bare, **content})


def check_bareness(run: RunFolder, params: GenerationParams) -> None:
    """A clip with and without its settings in it has one key: who wants it without must not get the other."""
    manifest = read_manifest(run)
    if params.bare and manifest is not None and not (manifest.model_extra or {}).get("bare"):
        raise InputError(
            "output_exists",
            "This clip was made before, with its settings in it; 'bare' wants it without them.",
            [Remedy("Set bare to false", bare=False), "Delete it in the history and run again"],
            ["bare"],
        )


def clip_of(run: RunFolder) -> Path:
    """The clip of a run that is done."""
    manifest = read_manifest(run)
    if manifest is None:  # someone removed it within these milliseconds
        raise InputError("clip_not_found", f"The clip in {run.path} has been removed.", ["Run it again"])
    return run.path / manifest.files["clip"]


def publish(clip: Path, target: Path, *, overwrite: bool) -> None:
    """Copy a clip and its sidecar; the clip comes last, so that it never stands without its settings.

    Raises:
        InputError: `output_exists`; SetupError: `output_not_writable`; CriticalError: `disk_full`. The run stays.
    """
    try:
        check_target(target, overwrite=overwrite)
        if sidecar_path(clip).is_file():
            copy(sidecar_path(clip), sidecar_path(target))
        else:
            sidecar_path(target).unlink(missing_ok=True)  # of the clip that is replaced by a bare one
        copy(clip, target)
    except VidkitError as error:
        error.args = (f"{error.message} The clip is made, and in the history.",)
        error.message = error.args[0]
        raise


def copy(source: Path, target: Path) -> None:
    with typed_write_errors(target), written_whole(target, durable=True) as temporary:
        shutil.copyfile(source, temporary)
