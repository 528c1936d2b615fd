"""What a training run keeps: weights in half precision, and the log that ships as the model's card."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file


class Log:
    """One JSON line an entry, in the state folder and on the terminal."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"

    def write(self, **entry: object) -> None:
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


def save_weights(module: torch.nn.Module, folder: Path, name: str) -> None:
    """Weights in half precision, as NAME.safetensors or several NAME-0000i-of-0000n.safetensors of at most 15 MB."""
    for old in folder.glob(f"{name}*.safetensors"):
        old.unlink()
    weights = {k: v.to(torch.float16).contiguous() for k, v in module.state_dict().items()}
    split = split_torch_state_dict_into_shards(
        weights, max_shard_size="15MB", filename_pattern=name + "{suffix}.safetensors"
    )
    for file, keys in split.filename_to_tensors.items():
        save_file({key: weights[key] for key in keys}, folder / file)


def load_weights(module: torch.nn.Module, folder: Path, name: str) -> None:
    """Weights into a module; when there are none of that name it stays as it is."""
    weights = {k: v.float() for file in folder.glob(f"{name}*.safetensors") for k, v in load_file(file).items()}
    if weights:
        module.load_state_dict(weights)


class Clock:
    """The share of this run that is over, by time or by steps, mapped onto the schedule."""

    def __init__(self, minutes: float, progress: tuple[float, float], steps: int | None = None) -> None:
        self.start, self.seconds, self.progress, self.steps, self.step = time.time(), minutes * 60, progress, steps, 0

    def tick(self) -> None:
        """One step more. The first is not counted: it compiles and records."""
        if self.step == 0:
            self.start = time.time()
        self.step += 1

    @property
    def elapsed(self) -> float:
        return time.time() - self.start

    @property
    def share(self) -> float:
        return self.step / self.steps if self.steps else min(self.elapsed / self.seconds, 1.0)

    @property
    def now(self) -> float:
        return self.progress[0] + (self.progress[1] - self.progress[0]) * self.share

    @property
    def over(self) -> bool:
        return self.share >= 1


def run_parser(description: str | None, batch: int, pictures: int) -> argparse.ArgumentParser:
    """The options of every training run on pictures."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--progress", type=float, nargs=2, default=(0.0, 1.0))
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--pictures", type=int, default=pictures)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def prepare_torch(seed: int) -> str:
    """Seeds and speed settings; the device's name."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    # attention here is over a few hundred tokens at most, where this kernel beats the others (two-fold at 14 tokens)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_run(log: Log, stage: str, options: argparse.Namespace) -> None:
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    log.write(stage=stage, card=card, torch=torch.__version__, batch=options.batch, seed=options.seed)
