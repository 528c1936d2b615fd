"""How many tokens a prompt has, counted with the model's own vocabulary. Loads neither torch nor transformers.

transformers builds its CLIPTokenizer from two tables in the model's folder and fixed rules; here the same rules are
put over the same tables, with the library that it uses itself. A test holds the ids against those of transformers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.files.config_files import invalid_config, read_json
from vidkit.models.locate import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: CLIP's text encoder reads so many tokens at once, start and end among them
CLIP_LENGTH: Final = 77
START, END = "<|startoftext|>", "<|endoftext|>"

#: transformers.models.clip.tokenization_clip
WORDS: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TokenCounter:
    """limit: how many of a prompt's tokens the model's text encoder reads at once, 75 for all published ones."""

    tokenizer: Tokenizer
    limit: int

    def ids(self, text: str) -> list[int]:
        """The tokens of a text without start and end, as `vidkit.pipelines.prompts.token_ids` has them."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def count(self, text: str) -> int:
        return len(self.ids(text))

    def describe(self, text: str) -> str:
        """In words: how long a prompt is, and what becomes of one that is too long to be read at once."""
        count = self.count(text)
        if count <= self.limit:
            return f"{count} of {self.limit} tokens"
        chunks = -(-count // self.limit)
        return f"{count} tokens: encoded in {chunks} chunks of {self.limit}, nothing is cut"


def token_counter(base: Model) -> TokenCounter:
    """The counter of a base model that takes text: 30 to 150 ms the first time, then it is kept.

    Raises:
        SetupError: `invalid_model`, when the model's tokenizer cannot be read.
    """
    return load_counter(base.configs)


@functools.lru_cache(maxsize=4)
def load_counter(folder: Path) -> TokenCounter:
    vocabulary, merges = read_tables(folder / "tokenizer")
    try:
        tokenizer = clip_tokenizer(vocabulary, merges)
    except Exception as error:
        raise invalid_config(folder / "tokenizer", str(error)) from error
    return TokenCounter(tokenizer, tokens_at_once(folder) - 2)


def tokens_at_once(folder: Path) -> int:
    """As `vidkit.pipelines.prompts`: the tokenizer's limit where its files have one, and the encoder's positions."""
    limits = [
        read_json(folder / "tokenizer" / "tokenizer_config.json").get("model_max_length", CLIP_LENGTH),
        read_json(folder / "text_encoder" / "config.json").get("max_position_embeddings", CLIP_LENGTH),
    ]
    return int(min(limits))


def read_tables(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A tokenizer's vocabulary and merges, from tokenizer.json or from the two files of older folders.

    Raises:
        SetupError: `invalid_model`.
    """
    whole = folder / "tokenizer.json"
    try:
        if whole.is_file():
            model = read_json(whole)["model"]
            return dict(model["vocab"]), [as_pair(merge) for merge in model["merges"]]
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        return dict(vocabulary), [as_pair(line) for line in lines if line and not line.startswith("#version")]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise invalid_config(folder, f"{type(error).__name__}: {error}") from error


def as_pair(merge: str | Sequence[str]) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def clip_tokenizer(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(vocabulary),
            merges=list(merges),
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(START, normalized=True), AddedToken(END, normalized=False)])
    return tokenizer
