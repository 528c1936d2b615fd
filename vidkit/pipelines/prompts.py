"""Prompts of any length for CLIP's text encoder, which reads 77 tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def encode_prompts(
    pipe: Any, prompt: str, negative_prompt: str, *, at_once: bool
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Text embeddings `(1, tokens, channels)` of both prompts, equally long, and notes.

    A prompt of up to 75 tokens gives what the pipeline itself would; one after the other exactly, at once up to
    rounding, in half of the time on a GPU. A longer one is encoded in chunks of 75, each between its own start and end
    tokens, and the chunks' embeddings are joined: nothing is cut.
    """
    import torch

    chunk = tokens_at_once(pipe) - 2
    words = [token_ids(pipe.tokenizer, text) for text in (prompt, negative_prompt)]
    chunks = max(1, *(-(-len(ids) // chunk) for ids in words))
    parts = [ids[start : start + chunk] for ids in words for start in range(0, chunks * chunk, chunk)]
    encoded = encode(pipe, parts) if at_once else torch.cat([encode(pipe, [part]) for part in parts])
    both = encoded.reshape(2, -1, encoded.shape[-1])
    notes = []
    if chunks > 1:
        notes.append(f"The text is {max(map(len, words))} tokens long and was encoded in {chunks} chunks of {chunk}.")
    return both[:1], both[1:], notes


def tokens_at_once(pipe: Any) -> int:
    """77, with start and end. Some tokenizers' files don't say and give 1e30; the encoder's positions are the limit."""
    return int(min(pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings))


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's tokens without start and end."""
    return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def encode(pipe: Any, parts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Embeddings (parts, tokens, channels) of tokens without start and end."""
    import torch

    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    rows = []
    for ids in parts:
        padding = tokens_at_once(pipe) - 2 - len(ids)
        rows.append([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding])
    with torch.no_grad():
        # not waited for: the device has a picture to encode
        tokens = torch.tensor(rows).to(pipe._execution_device, non_blocking=True)
        embeddings: torch.Tensor = encoder(tokens)[0]
    return embeddings
