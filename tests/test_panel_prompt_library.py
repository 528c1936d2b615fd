from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vidkit.errors import InputError
from vidkit.panel.prompt_library import CATEGORIES, PromptLibrary, added_to, bundled

SPECIFIED = (
    "slow cinematic zoom in, woman turning head slowly, wind blowing through hair, golden hour lighting, "
    "dreamy atmosphere, film grain"
)
SPECIFIED_NEGATIVE = "blurry, distorted, low quality, static, ugly, deformed, low res"


@pytest.fixture
def library(vidkit_home: Path) -> PromptLibrary:
    return PromptLibrary()


def test_every_category_has_examples_each_with_words_on_what_it_does() -> None:
    examples = bundled().examples
    for category in CATEGORIES:
        texts = [example.text for example in examples if example.category == category]
        assert len(texts) >= 12, category
        assert len({text.lower() for text in texts}) == len(texts), category
    assert all(example.help and example.text == example.text.strip() for example in examples)


def test_what_the_bundled_model_was_taught_is_among_the_camera_moves_and_marked() -> None:
    from training.prompts import MOVES

    marked = {example.text for example in bundled().examples if example.demonstration}
    camera = {example.text for example in bundled().examples if example.category == "camera"}
    assert set(MOVES) <= marked <= camera


def test_the_specifications_request_is_there_whole_and_in_its_parts(library: PromptLibrary) -> None:
    whole = [(one.prompt, one.negative_prompt) for one in library.prompts()]
    assert (SPECIFIED, SPECIFIED_NEGATIVE) in whole
    parts = {example.text for example in bundled().examples if example.category != "negative"}
    assert set(SPECIFIED.split(", ")) <= parts
    assert SPECIFIED_NEGATIVE in {example.text for example in library.examples("negative")}


def test_search_wants_all_words_in_text_or_help(library: PromptLibrary) -> None:
    assert "zoom in" in {example.text for example in library.examples("camera", "ZOOM in")}
    assert {"backlit", "rim light"} <= {example.text for example in library.examples(search="subject light")}
    assert {example.category for example in library.examples(search="hair")} == {"motion"}
    assert library.examples("camera", "zoom submarine") == []


@pytest.mark.parametrize(
    ("prompt", "words", "expected"),
    [
        ("", "zoom in", "zoom in"),
        ("a cat", "zoom in", "a cat, zoom in"),
        ("a cat, ", "zoom in", "a cat, zoom in"),
        ("a cat, Zoom In", "zoom in", "a cat, Zoom In"),
        ("a cat zoom in the dark", "zoom in", "a cat zoom in the dark, zoom in"),
        ("blurry, dark", "blurry, ugly", "blurry, dark, ugly"),
    ],
)
def test_words_are_added_behind_a_comma_and_only_once(prompt: str, words: str, expected: str) -> None:
    assert added_to(prompt, words) == expected


def test_own_words_come_first_and_are_kept_for_the_next_session(library: PromptLibrary) -> None:
    library.add_example("light", "  light of  a lighthouse ")
    again = PromptLibrary()
    first = again.examples("light")[0]
    assert (first.text, first.own) == ("light of a lighthouse", True)
    again.remove_example("light", "Light of a lighthouse")
    assert not any(example.own for example in library.examples())


def test_words_that_are_there_or_none_are_refused(library: PromptLibrary) -> None:
    for words in ("", "   ", "Golden Hour Lighting"):
        with pytest.raises(InputError) as refused:
            library.add_example("light", words)
        assert refused.value.code == "invalid_value"
    library.add_example("camera", "golden hour lighting")  # in another category it is another thing
    with pytest.raises(InputError, match="none of your own words under Light"):
        library.remove_example("light", "golden hour lighting")


def test_saved_prompts_are_replaced_only_when_told(library: PromptLibrary) -> None:
    library.save_prompt("Cat", "a cat", "dogs")
    with pytest.raises(InputError) as there:
        library.save_prompt("cat", "another cat")
    assert there.value.code == "output_exists"
    library.save_prompt("cat", "another cat", overwrite=True)
    own = [one for one in PromptLibrary().prompts() if one.own]
    assert [(one.name, one.prompt, one.negative_prompt) for one in own] == [("cat", "another cat", "")]
    library.remove_prompt("cat")
    assert not any(one.own for one in library.prompts())


@pytest.mark.parametrize(
    ("name", "prompt", "code"),
    [("", "a cat", "invalid_value"), ("x" * 81, "a cat", "invalid_value"), ("x", "  ", "empty_prompt"),
     ("portrait in the WIND", "a cat", "invalid_value")],
)  # fmt: skip
def test_what_cannot_be_saved(library: PromptLibrary, name: str, prompt: str, code: str) -> None:
    with pytest.raises(InputError) as refused:
        library.save_prompt(name, prompt)
    assert refused.value.code == code
    assert not library.path.exists()


def test_bundled_ones_cannot_be_removed(library: PromptLibrary) -> None:
    with pytest.raises(InputError):
        library.remove_prompt("Portrait in the wind")
    with pytest.raises(InputError):
        library.remove_example("camera", "zoom in")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"examples": [{"category": "nothing", "text": "x"}]}', "\xff"])
def test_a_damaged_file_is_kept_aside_and_told(library: PromptLibrary, content: str) -> None:
    library.path.parent.mkdir(parents=True, exist_ok=True)
    library.path.write_bytes(content.encode("latin-1"))
    assert not any(example.own for example in library.examples())
    kept = list(library.path.parent.glob("prompts.damaged-*.json"))
    assert [file.read_bytes() for file in kept] == [content.encode("latin-1")]
    assert library.problem is not None
    assert kept[0].name in library.problem
    library.add_example("style", "woodcut")
    assert any(example.text == "woodcut" for example in PromptLibrary().examples("style"))


def test_keys_of_a_later_version_are_kept(library: PromptLibrary) -> None:
    library.add_example("style", "woodcut")
    content = json.loads(library.path.read_text())
    library.path.write_text(json.dumps({**content, "colours": ["red"]}))
    library.add_example("style", "linocut")
    assert json.loads(library.path.read_text())["colours"] == ["red"]


def test_two_panels_that_add_at_once_lose_nothing(vidkit_home: Path) -> None:
    libraries = [PromptLibrary(), PromptLibrary()]
    threads = [
        threading.Thread(target=lambda one=one, n=n: [one.add_example("style", f"style {n} {i}") for i in range(15)])
        for n, one in enumerate(libraries)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(example.own for example in PromptLibrary().examples("style")) == 30


def test_what_another_session_added_is_seen(library: PromptLibrary) -> None:
    assert not any(example.own for example in library.examples())
    PromptLibrary().add_example("style", "woodcut")
    assert any(example.text == "woodcut" for example in library.examples("style"))


def test_neither_torch_nor_widgets_are_loaded() -> None:
    code = (
        "import sys; from vidkit.panel.prompt_library import PromptLibrary; PromptLibrary().examples();"
        "import vidkit.panel.prompt_tokens; assert not {'torch', 'transformers', 'ipywidgets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
