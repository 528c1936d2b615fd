"""Write a training state as the model that ships: `python -m training.export svd|animatediff STATE BUNDLED_FOLDER`.

The averaged weights in half precision, vidkit's model cards (`vidkit.json`), and the training log beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from . import tiny_animatediff, tiny_svd
from .state import load_weights
from .train_text import make_tokenizer

SVD_CARD = {
    "name": "tiny-svd",
    "description": "A demonstration model: camera moves over any picture, on a CPU. Trained by vidkit's own code.",
    "licence": "Apache-2.0",
    "defaults": {
        "width": tiny_svd.SIZE,
        "height": tiny_svd.SIZE,
        "numFrames": tiny_svd.FRAMES,
        "numInferenceSteps": 8,
        "minGuidanceScale": 1.0,
        "maxGuidanceScale": 1.0,
    },
    "ranges": {"width": [64, 256], "height": [64, 256]},
    "windowFrames": tiny_svd.FRAMES,
}
ANIMATEDIFF_CARD = {
    "name": "tiny-animatediff",
    "description": "A demonstration model: the words choose the camera move, on a CPU. Trained by vidkit's own code.",
    "licence": "Apache-2.0",
    "scheduler": "model",
    "defaults": {
        "width": tiny_svd.SIZE,
        "height": tiny_svd.SIZE,
        "numFrames": tiny_animatediff.FRAMES,
        "numInferenceSteps": 8,
    },
    "ranges": {"width": [64, 256], "height": [64, 256], "motionScale": [0, 2]},
}
ADAPTER_CARD = {
    "name": "tiny-motion-adapter",
    "description": "The motion adapter of tiny-animatediff. Trained by vidkit's own code.",
    "licence": "Apache-2.0",
    "conditionings": ["init", "pia"],
}


def write_card(folder: Path, card: dict[str, object], state: Path) -> None:
    (folder / "vidkit.json").write_text(json.dumps(card, indent=2) + "\n")
    shutil.copy(state / "log.jsonl", folder / "training_log.jsonl")


def export_svd(state: Path, bundled: Path) -> None:
    model, folder = tiny_svd.TinySvd.fresh(), bundled / "tiny-svd"
    load_weights(model.vae, state, "vae")
    load_weights(model.unet, state, "average_unet")
    load_weights(model.image_encoder, state, "average_image_encoder")
    shutil.rmtree(folder, ignore_errors=True)
    model.save(folder)
    write_card(folder, SVD_CARD, state)


def export_animatediff(state: Path, bundled: Path) -> None:
    model, base, adapter = (
        tiny_animatediff.TinyAnimateDiff.fresh(),
        bundled / "tiny-animatediff",
        bundled / "tiny-motion-adapter",
    )
    load_weights(model.vae, state, "vae")
    load_weights(model.text_encoder, state, "text_encoder")
    load_weights(model.unet, state, "average_unet")
    for folder in (base, adapter):
        shutil.rmtree(folder, ignore_errors=True)
    model.save(base, adapter, make_tokenizer(state / "tokenizer"))
    write_card(base, ANIMATEDIFF_CARD, state)
    write_card(adapter, ADAPTER_CARD, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["svd", "animatediff"])
    parser.add_argument("state", type=Path)
    parser.add_argument("bundled", type=Path)
    options = parser.parse_args()
    work = {"svd": export_svd, "animatediff": export_animatediff}
    work[options.model](options.state, options.bundled)


if __name__ == "__main__":
    main()
