"""The panel where nobody can press anything: the picture and the settings, as plain HTML."""

from __future__ import annotations

import base64
import html
from typing import Final

from vidkit.errors import VidkitError
from vidkit.images import encode_png, fit_image
from vidkit.models.locate import picture_path
from vidkit.params import GenerationParams, group_of, is_used
from vidkit.record import load_picture
from vidkit.resolving import resolve_request
from vidkit.settings import load_settings

#: pixels: the longer side of the picture
SHOWN: Final = 256


def static_html(params: GenerationParams) -> str:
    """The request as it would run, or why it would not."""
    try:
        resolved = resolve_request(params, load_settings()).params
        picture, problem = picture_html(resolved), ""
    except VidkitError as error:
        resolved, picture, problem = params, "", f"<p>{html.escape(error.message)}</p>"
    resolved = resolved.model_copy(update={"seed": params.seed})  # one to be drawn is not drawn here
    rows = "".join(
        f"<tr><th style='text-align:left'>{name.replace('_', ' ')}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in resolved
        if value is not None and is_told(name, params)
    )
    title = "<p>vidkit control panel (not live: run this notebook by hand to use it)</p>"
    return f"{title}{problem}{picture}<table>{rows}</table>"


def is_told(name: str, params: GenerationParams) -> bool:
    required = GenerationParams.model_fields[name].is_required()
    return group_of(name) != "hidden" and (required or is_used(name, params.pipeline, params.conditioning))


def picture_html(resolved: GenerationParams) -> str:
    width, height = resolved.width or SHOWN, resolved.height or SHOWN
    scale = min(1, SHOWN / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = fit_image(load_picture(picture_path(resolved.image_path)), *size, resolved.fit)
    data = base64.b64encode(encode_png(picture)).decode("ascii")
    return f'<img alt="the picture as the model sees it" width="{size[0]}" src="data:image/png;base64,{data}">'
