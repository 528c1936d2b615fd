"""`report.html`: one file beside the run folders that shows a sweep's videos side by side, in step.

The page's template, style and scripts are in the folder report/ beside this file; they are put into one document here,
with the sweep's data as JSON. It asks nothing of any network, and its Content-Security-Policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import io
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml

from vidkit.files import written_whole
from vidkit.params import canonical_names
from vidkit.paths import local_path
from vidkit.sweep.report_data import MEASURE_LABELS, Point, Sweep, is_number, read_sweep

REPORT_NAME: Final = "report.html"

#: concatenated in this order into the page's one script
_SCRIPTS: Final = (
    "state.js",
    "master_clock.js",
    "clock.js",
    "tiles.js",
    "views.js",
    "controls.js",
    "dialogs.js",
    "keys.js",
)
_MEDIA_TYPES: Final = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif", ".png": "image/png"}


def write_report(root: str | Path, *, embed: bool = False) -> Path:
    """Write `report.html` into a sweep's folder and return its path; an older one is replaced.

    Args:
        root: the folder that holds the run folders and, if the sweep was planned, plan.json.
        embed: put clips and posters inside, so that the one file can be sent; else they are linked by relative path.

    Raises:
        InputError: `clip_not_found`, when the folder holds neither runs nor a plan.
        OSError: the folder cannot be written.
    """
    folder = local_path(root)
    page = render(read_sweep(folder), embed=embed)
    path = folder / REPORT_NAME
    with written_whole(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path


def render(sweep: Sweep, *, embed: bool) -> str:
    """The whole document."""
    style = _asset("style.css")
    script = "".join(_asset(name) for name in _SCRIPTS)
    parts = {
        "title": html.escape(sweep.name),
        "policy": html.escape(_policy(style, script)),
        "style": style,
        "script": script,
        "data": _json_for_html(page_data(sweep, embed=embed)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("template.html"))


def page_data(sweep: Sweep, *, embed: bool) -> dict[str, Any]:
    """What the page's script reads: axes with their values' labels, measures with their ranges, all points."""
    names = dict.fromkeys(name for point in sweep.points for name in point.measures)
    measures = []
    for name in names:
        values = [point.measures[name] for point in sweep.points if name in point.measures]
        measures.append(
            {"name": name, "label": MEASURE_LABELS.get(name, name), "low": min(values), "high": max(values)}
        )
    return {
        "title": sweep.name,
        "planned": sweep.has_plan,
        "axes": [{"name": axis.name, "labels": axis.labels} for axis in sweep.axes],
        "measures": measures,
        "points": [_point_data(number, point, embed=embed) for number, point in enumerate(sweep.points)],
    }


def _point_data(number: int, point: Point, *, embed: bool) -> dict[str, Any]:
    manifest = point.manifest
    request = _request(manifest.get("request"))
    clip, poster, notebook = (point.file(name) for name in ("clip", "poster", "notebook"))
    return {
        "id": point.key[:16] or f"point-{number}",
        "status": point.status,
        "at": point.at,
        "clip": clip and _address(clip, embed=embed),
        "poster": poster and (_embedded_poster(poster) if embed else _address(poster, embed=False)),
        "notebook": None if embed else notebook and _address(notebook, embed=False),
        "frames": _count(request.get("num_frames")),
        "fps": _count(request.get("fps")),
        "width": _count(request.get("width")),
        "height": _count(request.get("height")),
        "request": request,
        "yaml": as_yaml(request) if request else None,
        "command": as_command(request) if request else None,
        "measures": point.measures,
        "error": manifest.get("error"),
        **{
            name: manifest.get(name)
            for name in ("timing", "notes", "models", "pictures", "versions", "plan", "finished", "attempts")
        },
    }


def _request(record: Any) -> dict[str, Any]:
    """What was given of a request, by the parameters' snake_case names."""
    named = canonical_names(record) if isinstance(record, Mapping) else {}
    return {name: value for name, value in named.items() if value is not None}


def as_yaml(request: Mapping[str, Any]) -> str:
    """A request as a YAML file that `vidkit sweep` (as `base`) and papermill (`-f`) take."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where libyaml is
    return str(yaml.dump(dict(request), Dumper=dumper, allow_unicode=True, sort_keys=False, width=2**31 - 1))


def as_command(request: Mapping[str, Any]) -> str:
    """A request as a command line for a POSIX shell."""
    return "vidkit generate " + " ".join(_option(name, value) for name, value in request.items())


def _option(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return shlex.quote(f"--{flag}={value}")  # with "=", so that a prompt may begin with a dash


def _count(value: Any) -> float | None:
    return value if is_number(value) and value > 0 else None


def _address(path: Path, *, embed: bool) -> str:
    if not embed:
        return f"{quote(path.parent.name)}/{quote(path.name)}"
    return _data_uri(path.read_bytes(), _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"))


def _embedded_poster(path: Path) -> str:
    """As JPEG: posters are shown until a clip has loaded, and lossless ones would be most of the file."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(stream, "JPEG", quality=85)
    return _data_uri(stream.getvalue(), "image/jpeg")


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _policy(style: str, script: str) -> str:
    """Nothing but this page's own style and script, and pictures and clips from beside it or inside it."""
    media = "'self' file: data:"
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        f"img-src {media}; media-src {media}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _json_for_html(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(_finite(data), separators=(",", ":"), default=str)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _finite(value: Any) -> Any:
    """NaN and infinities are no JSON: they become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _asset(name: str) -> str:
    return importlib.resources.files("vidkit.sweep").joinpath("report", name).read_text(encoding="utf-8")
