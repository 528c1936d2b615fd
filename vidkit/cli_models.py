"""The command line's verbs for models: `vidkit models list | inspect | download | add | combine | remove |
verify | convert`.

Without `--json` they speak to a person; with it stdout is one JSON document, and progress is JSON lines on stderr.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkit.cli_output import Output
from vidkit.ending_signals import ENDING_SIGNALS
from vidkit.errors import EXIT_CODES, Cancelled, InputError, SetupError
from vidkit.files import typed_write_errors
from vidkit.paths import local_path, path_to_write
from vidkit.progress import CancelToken, Progress
from vidkit.settings import Settings, load_settings

if TYPE_CHECKING:
    from vidkit.models.inspection import Inspection
    from vidkit.models.listing import Listed


def add_verbs(verbs: Any) -> None:
    """Add the parsers of this file's verbs to those of the command line."""
    models = verbs.add_parser("models", help="list, inspect, download, add, combine, remove, verify and convert models")
    models.set_defaults(run=run_list, available=False, json=False)
    actions = models.add_subparsers(metavar="ACTION")
    listing = action(actions, "list", run_list, "the models on this machine, and what goes with what")
    listing.add_argument("--available", action="store_true", help="also those that can be downloaded by name")
    inspect = action(actions, "inspect", run_inspect, "what a file or folder is, without loading it")
    inspect.add_argument("model", help="a path, or a model's name")
    inspect.add_argument("--base", metavar="MODEL", help="whether it goes with this base model")
    download = action(actions, "download", run_download, "fetch a model; the only verb that uses the network")
    download.add_argument(
        "source", help="a name of list --available, ORGANISATION/NAME on the hub, or https://...; - reads it from stdin"
    )
    download.add_argument("--name", help="what to call it here")
    download.add_argument("--sha256", help="for an address: what the file's hash has to be")
    add = action(actions, "add", run_add, "register a model that lies elsewhere; it stays where it is")
    add.add_argument("path", help="a diffusers folder, or a file of weights")
    add.add_argument("--name", help="what to call it; default: like its file or folder")
    add.add_argument("--family", help="the registry's group; default: what it is for (svd, animatediff, custom)")
    add.add_argument("--type", help="the registry's word for it (sd15, motion_adapter, ...); default: as inspected")
    remove = action(actions, "remove", run_remove, "take a model off the registry")
    remove.add_argument("name")
    remove.add_argument("--files", action="store_true", help="delete its files too, if they lie in the models folder")
    remove.add_argument("--yes", action="store_true", help="with --files: don't ask first")
    combine = action(actions, "combine", run_combine, "make a base model of another one and a UNet, by links")
    combine.add_argument("base", help="a base model in diffusers' layout: a path, or a model's name")
    combine.add_argument("unet", help="a file with a UNet alone, of the same shape")
    combine.add_argument("--name", required=True, help="what to call it, in the models folder")
    verify = action(actions, "verify", run_verify, "read models anew and compare with every hash known of them")
    verify.add_argument("names", nargs="*", metavar="MODEL", help="default: all")
    convert = action(actions, "convert", run_convert, "write a pickle (.ckpt, .pt, .bin) as safetensors")
    convert.add_argument("source", help="a path, or a model's name")
    convert.add_argument("target", type=path_to_write, nargs="?", help="default: beside it, with .safetensors")
    convert.add_argument("--overwrite", action="store_true", help="replace the target")


def action(
    actions: Any, name: str, run: Callable[[argparse.Namespace, Output], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", action="store_true", help="as one JSON document")
    parser.set_defaults(run=run)
    return parser


def say(options: argparse.Namespace, output: Output, document: Any, lines: Iterable[str]) -> None:
    """The document as JSON, or the lines, which are the same in words."""
    output.text(json.dumps(document, ensure_ascii=False) if options.json else "\n".join(lines))


# --- list


def run_list(options: argparse.Namespace, output: Output) -> int:
    from vidkit.cli_models_text import list_lines, published_lines
    from vidkit.models.listing import listed_models

    settings = load_settings()
    models = described(listed_models(settings))
    document: dict[str, Any] = {"models": models}
    lines = list(list_lines(models, headings(settings)))
    if options.available:
        document["available"] = available(models)
        lines += ["", *published_lines(document["available"])]
    elif not options.json:
        lines += ["", "More to download: vidkit models list --available"]
    say(options, output, document, lines)
    return 0


def headings(settings: Settings) -> dict[str, str]:
    from vidkit.models.registry import registry_file

    return {
        "ships with vidkit": "Ships with vidkit",
        "in the models folder": f"In {settings.models}",
        "registered": f"Registered in {registry_file(settings)}",
        "default of the settings": "Default models of the settings, elsewhere",
    }


def described(listed: list[Listed]) -> list[dict[str, Any]]:
    """What each is, and the base models here that each part goes with."""
    from vidkit.models.entries import in_gigabytes
    from vidkit.models.listing import look_at

    looks = [(one, *look_at(one)) for one in listed]
    bases = {one.name: found for one, found, _ in looks if found is not None and is_base(found)}
    return [
        {
            "name": one.name,
            "path": str(one.path),
            "origin": one.origin,
            "what": found.title if found else "",
            "kind": found.kind if found else None,
            "architecture": found.architecture if found else None,
            "size": found.size if found else None,
            "sizeInWords": in_gigabytes(found.size) if found else "",
            "problem": problem,
            "goesWith": goes_with(found, bases) if found and not is_base(found) else None,
            "registered": dict(one.entry.fields) if one.entry else None,
        }
        for one, found, problem in looks
    ]


def is_base(found: Inspection) -> bool:
    return found.kind.endswith("base model") or found.kind == "Stable Video Diffusion"


def goes_with(part: Inspection, bases: Mapping[str, Inspection]) -> list[str]:
    from vidkit.models.compatibility import why_not_together

    return [name for name, base in bases.items() if why_not_together(part, base) is None]


def available(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The catalogue's models that are not here yet."""
    from vidkit.models.catalogue import catalogue

    here = {(model["registered"] or {}).get("catalogue") for model in models}
    return [
        one.model_dump(mode="json", exclude={"steps", "guidance", "frames", "size"})
        | {"source": one.source, "page": one.page, "limits": one.limits()}
        for one in catalogue()
        if one.name not in here
    ]


# --- one model


def run_inspect(options: argparse.Namespace, output: Output) -> int:
    from vidkit.cli_models_text import table_lines
    from vidkit.models.checkpoints.words import in_words, written
    from vidkit.models.compatibility import why_not_together
    from vidkit.models.inspection import inspect
    from vidkit.models.locate import card_file, find, read_card

    settings = load_settings()
    found = inspect(find(options.model, settings, "model"))
    document = asdict(found) | {"path": str(found.path), "title": found.title, "details": dict(found.details)}
    told: dict[str, Any] = {"path": found.path, **in_words(found)}
    own = card_file(found.path)
    document["card"] = read_card(own) if own.is_file() else None
    if document["card"]:
        told |= {f"card: {key}": written(value) for key, value in document["card"].items()}
    if options.base is not None:
        reason = why_not_together(found, inspect(find(options.base, settings, "base model")))
        document["base"] = {"model": options.base, "compatible": reason is None, "reason": reason}
        told[f"with {options.base}"] = reason or "goes together"
    say(options, output, document, table_lines(told))
    return 0


def run_add(options: argparse.Namespace, output: Output) -> int:
    from vidkit.models.entries import register_model
    from vidkit.models.inspection import inspect

    path = local_path(options.path).absolute()
    entry = register_model(load_settings(), inspect(path), options.name, options.family, type=options.type)
    document = {"status": "success", "name": entry.name, "family": entry.family, "path": str(entry.path)}
    say(options, output, document, [f"{entry.name}: {entry.text('description')}, {entry.text('size')}"])
    return 0


def run_combine(options: argparse.Namespace, output: Output) -> int:
    from vidkit.models.combining import combine

    entry = combine(options.base, options.unet, options.name, load_settings())
    document = {"status": "success", "name": entry.name, "family": entry.family, "path": str(entry.path)}
    say(options, output, document, [f"{entry.name}: {entry.text('description')}, links in {entry.path}"])
    return 0


def run_remove(options: argparse.Namespace, output: Output) -> int:
    from vidkit.models.locate import card_file, find
    from vidkit.models.registry import find_registered, unregister

    settings = load_settings()
    entry = find_registered(options.name, settings)
    if entry is None and not options.files:
        raise SetupError(
            "model_not_found",
            f"The registry has no model {options.name[:200]!r}.",
            ["See vidkit models list for the names", "To delete files in the models folder: --files"],
        )
    deleted, kept = None, "its files are where they were"
    if options.files:
        path = entry.path if entry else find(options.name, settings, "model")
        confirm(deletable(path, settings), options.yes)
        linked = any(file.is_symlink() for file in (path, *path.rglob("*")))
        kept = "its links are deleted, what they led to is not (hf cache rm)" if linked else "its files are deleted"
        deleted = delete(path, card_file(path))
    if entry is not None:
        unregister(settings, f"{entry.family}/{entry.name}")  # another family may have the name too
    path = entry.path if entry else path
    document = {"status": "success", "name": options.name, "path": str(path), "deleted": deleted}
    say(options, output, document, [f"Removed {options.name}; {kept}: {path}"])
    return 0


def deletable(path: Path, settings: Settings) -> Path:
    """Raises:
    InputError: `invalid_value`: it lies outside of the models folder.
    """
    place = path.parent.resolve() / path.name
    if not place.is_relative_to(settings.models.resolve()) or place == settings.models.resolve():
        raise InputError(
            "invalid_value",
            f"{path} lies outside of the models folder {settings.models}: vidkit does not delete there.",
            ["Leave --files out, and delete it yourself"],
        )
    return place


def confirm(path: Path, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin or not sys.stdin.isatty():
        raise InputError("invalid_request", f"--files would delete {path}.", ["Add --yes to delete it"])
    print(f"Delete {path}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled(message="Nothing was removed.")


def delete(path: Path, card: Path) -> list[str]:
    """A link's target stays: it is somebody else's, or the hub's cache. What is there no more needs no deleting.

    card: of the model, which goes with it.
    """
    with typed_write_errors(path):
        if path.is_symlink() or path.is_file():
            path.unlink()
            card.unlink(missing_ok=True)
        elif path.is_dir():
            gone = path.with_name(f".{path.name}.removed")  # hidden at once: half a model is none
            path.replace(gone)
            shutil.rmtree(gone)
        else:
            return []
    return [str(path)]


# --- the long ones


def run_download(options: argparse.Namespace, output: Output) -> int:
    from vidkit.cli_models_text import below
    from vidkit.models.download import download

    # not on the command line, which is there for all to see, where the address holds a token
    source = sys.stdin.readline() if options.source == "-" and sys.stdin is not None else options.source
    done = download(
        source,
        load_settings(),
        name=options.name,
        sha256=options.sha256,
        on_progress=teller(options, output),
        cancel=cancelled_by_signals(),
    )
    lines = [f"{done.name}: {done.inspection.title}", *below(str(done.path))]
    say(options, output, done.to_json(), [*lines, *(line for note in done.notes for line in below(note))])
    return 0


def run_verify(options: argparse.Namespace, output: Output) -> int:
    from vidkit.cli_models_text import verified_lines
    from vidkit.models.listing import listed_models
    from vidkit.models.verification import verify

    settings, cancel, tell = load_settings(), cancelled_by_signals(), teller(options, output)
    listed = chosen(options.names, listed_models(settings), settings)
    results = []
    for number, one in enumerate(listed):
        tell(Progress(100 * number // len(listed), f"Reading {one.name}…"))
        results.append(verify(one, settings, lambda: stop_if(cancel)).to_json())
    tell(Progress(100, "All are read"))  # which ends the line on a terminal
    good = all(result["ok"] for result in results)
    say(options, output, {"status": "success" if good else "error", "models": results}, verified_lines(results))
    return 0 if good else EXIT_CODES["system"]


def chosen(names: list[str], listed: list[Listed], settings: Settings) -> list[Listed]:
    """Those of the names, or all; also one that is named by a path nothing lists."""
    from vidkit.models.listing import Listed
    from vidkit.models.locate import find
    from vidkit.models.registry import is_same_place

    found = []
    for name in names:
        same = [one for one in listed if name == one.name]
        path = same[0].path if same else find(name, settings, "model")
        same = same or [one for one in listed if is_same_place(one.path, path)]
        found.append(same[0] if same else Listed(name, path, "in the models folder"))
    return found if names else listed


def run_convert(options: argparse.Namespace, output: Output) -> int:
    from vidkit.models.files.pickles import convert_to_safetensors
    from vidkit.models.locate import find

    source = find(options.source, load_settings(), "model")
    target = convert_to_safetensors(
        source, options.target or source.with_suffix(".safetensors"), overwrite=options.overwrite
    )
    say(options, output, {"status": "success", "path": str(target)}, [str(target)])
    return 0


def cancelled_by_signals() -> CancelToken:
    token = CancelToken()
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: token.cancel())
    return token


def stop_if(token: CancelToken) -> None:
    if token.cancelled:
        raise Cancelled(message="Stopped; nothing was changed.")


def teller(options: argparse.Namespace, output: Output) -> Callable[[Progress], None]:
    """Progress as JSON lines, or for a person: in place on a terminal, else a line when the percentage changes."""
    if options.json:
        return lambda event: output.event(event.to_json())
    last = -1

    def tell(event: Progress) -> None:
        nonlocal last
        text = f"{event.progress:3d} %  {event.message}"
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r{text[:79]:<79}", end="\n" if event.progress == 100 else "", file=sys.stderr, flush=True)
        elif event.progress != last:
            output.event({"log": text})
        last = event.progress

    return tell
