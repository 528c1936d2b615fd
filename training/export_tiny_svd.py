"""Write a training state as the model that ships: `python -m training.export_tiny_svd STATE FOLDER`.

The averaged weights in half precision, vidkit's model card (`vidkit.json`), and the training log beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from .tiny_svd import FRAMES, SIZE, TinySvd
from .train_tiny_svd import LONG_FRAMES, load_weights

CARD = {
    "name": "tiny-svd",
    "description": "A demonstration model: camera moves over any picture, on a CPU. Trained by vidkit's own code.",
    "licence": "Apache-2.0",
    "defaults": {
        "width": SIZE,
        "height": SIZE,
        "numFrames": FRAMES,
        "numInferenceSteps": 8,
        "minGuidanceScale": 1.0,
        "maxGuidanceScale": 1.0,
    },
    "ranges": {"numFrames": [2, LONG_FRAMES], "width": [64, 256], "height": [64, 256]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    model = TinySvd.fresh()
    load_weights(model.vae, options.state / "vae.safetensors")
    load_weights(model.unet, options.state / "unet.average.safetensors")
    load_weights(model.image_encoder, options.state / "image_encoder.average.safetensors")
    model.save(options.folder)
    (options.folder / "vidkit.json").write_text(json.dumps(CARD, indent=2) + "\n")
    shutil.copy(options.state / "log.jsonl", options.folder / "training_log.jsonl")


if __name__ == "__main__":
    main()
