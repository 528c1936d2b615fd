"""Train `tiny-animatediff`'s text encoder: `python -m training.train_text --state DIR`. Minutes on a CPU.

A CLIP text model, small, that learns to tell which camera move a prompt asks for: a linear reading of its output, at
the end-of-text position and each position after it, must name the move. The UNet then sees that through
cross-attention. Its tokenizer is CLIP's own with the first merges only, so that the table of word pieces stays small.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .prompts import MOVES, NO_MOVE, draw_prompt
from .state import Log, save_weights

FULL_TOKENIZER = Path(__file__).parent.parent / "vidkit" / "models" / "configs" / "sd15" / "tokenizer"
MERGES = 4096
BYTES = 512  # CLIP's vocabulary begins with the 256 bytes, alone and as ends of words; then one entry a merge
TOKENS = 77
CHANNELS = 64


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer cut down to its first merges, written to a folder and loaded from there."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = (FULL_TOKENIZER / "merges.txt").read_text(encoding="utf-8").split("\n")[: MERGES + 1]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    full = json.loads((FULL_TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    kept = {token: index for token, index in full.items() if index < BYTES + MERGES}
    kept |= {"<|startoftext|>": len(kept), "<|endoftext|>": len(kept) + 1}
    (folder / "vocab.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "LICENSE"):
        shutil.copy(FULL_TOKENIZER / name, folder / name)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def make_text_encoder() -> CLIPTextModel:
    size = BYTES + MERGES + 2
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=CHANNELS,
            intermediate_size=4 * CHANNELS,
            projection_dim=CHANNELS,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
            pad_token_id=size - 1,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """(prompts, 77) token numbers."""
    return tokenizer(prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def word_list() -> list[str]:
    """Whole words of CLIP's vocabulary: surroundings that mean nothing to a camera."""
    words = json.loads((FULL_TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    taken = set(" ".join(MOVES).replace("shot", "").split()) | {"push", "pull", "dolly", "truck", "still", "fixed"}
    whole = (word.removesuffix("</w>") for word in words if word.endswith("</w>"))
    return [word for word in whole if word.isascii() and word.isalpha() and len(word) > 2 and word not in taken]


def draw_batch(count: int, draw: random.Random, vocabulary: list[str]) -> tuple[list[str], list[int]]:
    moves = [draw.randrange(NO_MOVE + 1) for _ in range(count)]
    return [draw_prompt(move, draw, vocabulary) for move in moves], moves


def after_end(tokens: Tensor, end: int) -> Tensor:
    """(batch, 77) bool: the end-of-text position and all after it."""
    return (tokens == end).cumsum(1) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.manual_seed(0)
    draw, log = random.Random(0), Log(options.state)  # noqa: S311
    vocabulary = word_list()
    tokenizer = make_tokenizer(options.state / "tokenizer")
    encoder = make_text_encoder().train()
    reading = torch.nn.Linear(CHANNELS, NO_MOVE + 1)
    parameters = [*encoder.parameters(), *reading.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=options.steps, pct_start=0.1)
    for step in range(options.steps):
        prompts, moves = draw_batch(options.batch, draw, vocabulary)
        tokens, wanted = tokenize(tokenizer, prompts), torch.tensor(moves)
        scores = reading(encoder(tokens).last_hidden_state)
        ends = after_end(tokens, tokenizer.eos_token_id)
        losses = functional.cross_entropy(
            scores.flatten(0, 1), wanted.repeat_interleave(TOKENS), reduction="none", label_smoothing=0.02
        )
        loss = (losses * ends.flatten()).sum() / ends.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == options.steps - 1:
            right = (scores.argmax(-1) == wanted[:, None])[ends].float().mean()
            log.write(stage="text", step=step, loss=loss.item(), right=right.item())
    save_weights(encoder, options.state, "text_encoder")


if __name__ == "__main__":
    main()
