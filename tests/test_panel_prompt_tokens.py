from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import quickest
from tiny_models import SD15_CONFIGS, TinyAnimateDiff, save_single_file

from vidkit.errors import SetupError
from vidkit.models.locate import BUNDLED_FOLDER, describe
from vidkit.panel.prompt_library import bundled
from vidkit.panel.prompt_tokens import load_counter, token_counter
from vidkit.pipelines.prompts import token_ids

FOLDERS = (SD15_CONFIGS, BUNDLED_FOLDER / "tiny-animatediff")

TEXTS = (
    "",
    " ",
    "slow cinematic zoom in, woman turning head slowly",
    "don't it's we'll I'VE they're 12345 7.5!!??-- (masterpiece:1.2), [bad]",
    "  Ünïcödé ÀÉÎ ﬁ ½ Ⅷ 日本語 текст 🙂🙂",
    "e\u0301 and é, tab\tnew\nline \u00a0 nbsp\u3000wide \u200d\ufffd a\x00b",
    "a<|endoftext|>b <|startoftext|> c <|EndOfText|>",
    "İstanbul ΑΣ ς ß",
    "x" * 3000,
)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_ids_are_those_that_the_pipeline_encodes(folder: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    counter = load_counter(folder)
    draw = random.Random(5)
    alphabet = "abcXYZ 019,.'!-()[]:;é日🙂\n\t<|>"
    made = ["".join(draw.choice(alphabet) for _ in range(draw.randint(1, 60))) for _ in range(300)]
    for text in (*TEXTS, *made, *(example.text for example in bundled().examples)):
        assert counter.ids(text) == token_ids(tokenizer, text), text
    assert counter.limit == tokenizer.model_max_length - 2


def test_what_is_longer_than_the_encoder_reads_is_said_to_be_encoded_in_chunks() -> None:
    counter = load_counter(SD15_CONFIGS)
    assert counter.describe("") == "0 of 75 tokens"
    assert counter.describe("cat " * 75) == "75 of 75 tokens"
    assert counter.describe("cat " * 76) == "76 tokens: encoded in 2 chunks of 75, nothing is cut"
    assert counter.describe("cat " * 151) == "151 tokens: encoded in 3 chunks of 75, nothing is cut"


def test_counting_takes_a_few_milliseconds() -> None:
    counter = load_counter(SD15_CONFIGS)
    text = "slow cinematic zoom in, woman turning head slowly, " * 40

    assert quickest(lambda: counter.count(text)) < 0.02


def test_a_single_file_is_counted_with_the_vocabulary_that_it_is_loaded_with(
    tiny_animatediff: TinyAnimateDiff, tmp_path: Path
) -> None:
    shutil.copytree(tiny_animatediff.base, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    single = save_single_file(tiny_animatediff.base, tmp_path / "model" / "model.safetensors")
    assert token_counter(describe(single)).count("a cat") == 2


@pytest.mark.parametrize("damage", ["no folder", "no json", "other tables"])
def test_a_broken_tokenizer_is_a_typed_error(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / damage.replace(" ", "_")
    if damage != "no folder":
        (folder / "tokenizer").mkdir(parents=True)
        content = "{" if damage == "no json" else '{"model": {"vocab": {"a": 0}, "merges": [["b", "c"]]}}'
        (folder / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(SetupError) as broken:
        load_counter(folder)
    assert broken.value.code == "invalid_model"


def test_no_torch_is_loaded_to_count() -> None:
    code = (
        "import sys; from pathlib import Path; from vidkit.panel.prompt_tokens import load_counter;"
        f"load_counter(Path({str(SD15_CONFIGS)!r})).count('a cat');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
