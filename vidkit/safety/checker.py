"""Stable Diffusion's safety checker: a CLIP image encoder whose view of a picture is compared with that of concepts.

The class is diffusers', and so is the decision. It runs on the CPU, takes none of the GPU's memory, and what it takes
of the host's is taken before a request is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vidkit.errors import SetupError
from vidkit.libraries import quiet
from vidkit.models.files.content_hash import hash_model
from vidkit.models.files.file_format import FETCH_AGAIN, invalid, quoted
from vidkit.models.inspection import inspect_file
from vidkit.models.loading.components import known_key, without_weights
from vidkit.models.loading.reading import reading, weights_in
from vidkit.safety.screening import INSTALL, NAME
from vidkit.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

Picture = npt.NDArray[np.uint8]

#: of a checker's folder, the first that is there; the published one is a pickle, which is read as data alone
FILES: Final = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")

#: pictures looked at in one go: no quicker with more on a CPU
BATCH: Final = 4
#: The checker sees a square. It gets the middle of each frame, as it was made for; of a frame that is wider or higher
#: than this, in each eighth and the last, the two ends too.
SQUARE: Final = 1.25
ENDS_EVERY: Final = 8

#: values of each of a head's vectors in OpenAI's CLIP image encoders of all sizes: widths 768, 1024 in 12, 16 heads
HEAD: Final = 64


class WarmChecker:
    """The checker stays loaded between requests: 1.2 GB of the host's memory. Not thread-safe."""

    def __init__(self) -> None:
        self._sha256 = ""
        self._checker: Checker | None = None

    def of(self, path: Path, sha256: str) -> Checker:
        """Raises:
        SetupError: as `Checker`.
        """
        if self._checker is None or self._sha256 != sha256:
            self.drop()
            self._checker = Checker(path)
            self._sha256 = sha256
        return self._checker

    def drop(self) -> None:
        self._sha256, self._checker = "", None


def checker_hash(path: Path, settings: Settings, check: Callable[[], None]) -> str:
    """Its identity. check: as for `hash_model`.

    Raises:
        SetupError: `invalid_model`, when it is not there or cannot be read: it fails closed.
    """
    checker_file(path)
    return hash_model(path, settings, check)


class Checker:
    """Reads the checker from a folder or a file.

    Raises:
        SetupError: `invalid_model`, when it is no safety checker, or is not whole.
    """

    def __init__(self, path: Path) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        with quiet():
            self._module = load(checker_file(path))
        side = self._module.config.vision_config.image_size
        # the PIL class by its own module: without torchvision the other name warns and falls back to it
        self._processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def flagged(self, pictures: Sequence[Picture], on_done: Callable[[int], None] = lambda done: None) -> list[int]:
        """The numbers of the pictures that it takes for unsafe, in order.

        Args:
            pictures: RGB, uint8, `(height, width, 3)` each.
            on_done: called after each batch with the number of pictures that were looked at; may raise to stop.
        """
        unsafe: set[int] = set()
        for batch in batches(squares(pictures), BATCH):
            views = self._processor([view for _, view in batch], return_tensors="pt").pixel_values
            unsafe |= {number for (number, _), bad in zip(batch, self._judged(views), strict=True) if bad}
            on_done(batch[-1][0] + 1)
        return sorted(unsafe)

    def _judged(self, views: Any) -> list[bool]:
        # It would blacken the pictures it finds unsafe, which get these instead.
        canvas = [np.zeros(1)] * len(views)
        with quiet():
            return list(self._module(clip_input=views, images=canvas)[1])


def squares(pictures: Sequence[Picture]) -> Iterator[tuple[int, Image.Image]]:
    """What is looked at: a picture's number, and a square of it."""
    from PIL import Image

    for number, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        side, spare = min(height, width), abs(height - width)
        starts = [spare // 2]
        if max(height, width) > SQUARE * side and (number % ENDS_EVERY == 0 or number == len(pictures) - 1):
            starts += [0, spare]
        for start in starts:
            across = slice(start, start + side)
            yield number, Image.fromarray(picture[:, across] if width > height else picture[across])


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


# --- loading


def checker_file(path: Path) -> Path:
    """Raises:
    SetupError: `invalid_model`, when no weights are there.
    """
    files = [file for file in (path, *(path / name for name in FILES)) if file.is_file()]
    if not files:
        raise unusable(invalid(path, "holds no safety checker", FETCH_AGAIN))
    return files[0]


def load(file: Path) -> Any:
    """diffusers' module with the file's weights, in single precision on the CPU. What they are tells their shapes.

    Raises:
        SetupError: `invalid_model`.
    """
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    try:
        found = inspect_file(file)
        if found.kind != "safety checker":
            raise invalid(file, f"is no safety checker, but: {found.title}", FETCH_AGAIN)
        weights = weights_in(file)
        with reading({NAME: weights}, "cpu", "float32") as under_way:
            list(under_way.complete())
        config = config_of({key: tuple(tensor.shape) for key, tensor in weights.tensors.items()}, file)
        with without_weights():
            module = StableDiffusionSafetyChecker(config)
        expected = module.state_dict()
        tensors = {known_key(key, expected): tensor for key, tensor in weights.tensors.items()}
        for key, tensor in expected.items():
            if key not in tensors or tensors[key].shape != tensor.shape:
                raise invalid(file, f"is no whole safety checker: {quoted(key)} is missing or wrong", FETCH_AGAIN)
            if not torch.isfinite(tensors[key]).all():  # which would compare as safe
                raise invalid(file, f"is damaged: {quoted(key)} has values that are no numbers", FETCH_AGAIN)
        module.load_state_dict({key: tensors[key] for key in expected}, assign=True)
    except SetupError as error:
        raise unusable(error) from error
    return module.eval()


def config_of(shapes: Mapping[str, tuple[int, ...]], file: Path) -> Any:
    """The configuration of a CLIP image encoder with these weights, as OpenAI made them."""
    from transformers import CLIPConfig

    def shape(end: str) -> tuple[int, ...]:
        found = [shape for key, shape in shapes.items() if key.endswith(end)]
        if not found:
            raise invalid(file, f"is no whole safety checker: {quoted(end)} is missing", FETCH_AGAIN)
        return found[0]

    projection, width = shape("visual_projection.weight")
    patch, positions = shape("embeddings.patch_embedding.weight")[-1], shape("embeddings.position_embedding.weight")[0]
    vision = {
        "hidden_size": width,
        "intermediate_size": shape("layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": sum(key.endswith("mlp.fc1.weight") for key in shapes),
        "num_attention_heads": max(width // HEAD, 1),
        "image_size": round((positions - 1) ** 0.5) * patch,
        "patch_size": patch,
        "projection_dim": projection,
    }
    return CLIPConfig(vision_config=vision, projection_dim=projection)


def unusable(error: SetupError) -> SetupError:
    """A checker that is there and cannot be used stops every clip that it should look at."""
    remedies = [f"Take it away, then fetch it again: vidkit models remove {NAME} --files; {INSTALL}"]
    return SetupError(error.code, f"The safety checker does not load: {error.message}", remedies)
