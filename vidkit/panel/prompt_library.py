"""Words to choose from while writing a prompt: those that ship with vidkit, and the user's own.

What the user adds is in `VIDKIT_HOME/prompts.json`: phrases by category, and whole prompts under a name.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from vidkit.errors import InputError
from vidkit.files import typed_write_errors, written_whole
from vidkit.settings import home
from vidkit.sweep.yaml_text import read_yaml

#: "negative": presets for the negative prompt; all others go into the prompt
CategoryName = Literal["camera", "motion", "light", "style", "negative"]
CATEGORIES: Final = get_args(CategoryName)

LONGEST_NAME: Final = 80


@dataclass(frozen=True)
class Example:
    """A phrase to add. help: what it does; own: the user's; demonstration: the bundled model understands it too."""

    category: CategoryName
    text: str
    help: str = ""
    own: bool = False
    demonstration: bool = False


@dataclass(frozen=True)
class SavedPrompt:
    """A whole prompt under a name. own: the user's, and may be removed."""

    name: str
    prompt: str
    negative_prompt: str = ""
    own: bool = True


@dataclass(frozen=True)
class Bundled:
    """What prompt_examples.yaml holds."""

    titles: dict[CategoryName, str]
    examples: tuple[Example, ...]
    prompts: tuple[SavedPrompt, ...]


@functools.cache
def bundled() -> Bundled:
    content, _ = read_yaml(Path(__file__).with_name("prompt_examples.yaml").read_text(encoding="utf-8"))
    known = set(content["demonstration"])
    examples = [
        Example(category, text, help, demonstration=text in known)
        for category in CATEGORIES
        for text, help in content["categories"][category]["examples"].items()
    ]
    return Bundled(
        {category: content["categories"][category]["title"] for category in CATEGORIES},
        tuple(examples),
        tuple(SavedPrompt(name, own=False, **texts) for name, texts in content["prompts"].items()),
    )


class OwnExample(BaseModel):
    model_config = ConfigDict(strict=True)
    category: CategoryName
    text: str


class OwnPrompt(BaseModel):
    model_config = ConfigDict(strict=True, alias_generator=to_camel, populate_by_name=True)
    name: str
    prompt: str
    negative_prompt: str = ""


class OwnWords(BaseModel):
    """The content of prompts.json. Keys that it does not know are kept."""

    model_config = ConfigDict(strict=True, alias_generator=to_camel, populate_by_name=True, extra="allow")
    schema_version: Literal[1] = 1
    examples: list[OwnExample] = Field(default_factory=list)
    prompts: list[OwnPrompt] = Field(default_factory=list)


class PromptLibrary:
    """Examples and saved prompts. Several processes may share the file; each reads it again when it has changed.

    problem: what was wrong with the file, in words; the damaged one is kept beside it under another name.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / "prompts.json"
        self.problem: str | None = None
        self._words = OwnWords()
        self._read_at: tuple[int, int] | None = None

    def examples(self, category: CategoryName | None = None, search: str = "") -> list[Example]:
        """The user's own first. search: words that must all be in the text or its help, in any order and case."""
        wanted = search.lower().split()
        return [
            example
            for example in (*self._own_examples(), *bundled().examples)
            if category in (None, example.category)
            and all(word in f"{example.text} {example.help}".lower() for word in wanted)
        ]

    def _own_examples(self) -> list[Example]:
        return [Example(own.category, own.text, "your own", own=True) for own in self._read().examples]

    def add_example(self, category: CategoryName, text: str) -> Example:
        """Keep a phrase.

        Raises:
            InputError: `invalid_value`, when it is empty or there already.
            SetupError, CriticalError: the file cannot be written.
        """
        text = one_line(text)
        if not text:
            raise InputError("invalid_value", "There are no words to add.", ["Write the words first"])

        def add(words: OwnWords) -> None:
            if text.lower() in (example.text.lower() for example in self.examples(category)):
                raise InputError("invalid_value", f"{text!r} is there already.", ["Write other words"])
            words.examples.append(OwnExample(category=category, text=text))

        self._change(add)
        return Example(category, text, "your own", own=True)

    def remove_example(self, category: CategoryName, text: str) -> None:
        """Forget a phrase of the user's. Raises InputError `invalid_value`, when it is none of theirs."""
        text = one_line(text)

        def remove(words: OwnWords) -> None:
            kept = [own for own in words.examples if (own.category, own.text.lower()) != (category, text.lower())]
            if len(kept) == len(words.examples):
                title = bundled().titles[category]
                raise InputError(
                    "invalid_value",
                    f"{text!r} is none of your own words under {title}.",
                    ["Choose one of those that you added"],
                )
            words.examples = kept

        self._change(remove)

    def prompts(self) -> list[SavedPrompt]:
        """The user's own first, by name."""
        own = [SavedPrompt(one.name, one.prompt, one.negative_prompt) for one in self._read().prompts]
        return [*sorted(own, key=lambda prompt: prompt.name.lower()), *bundled().prompts]

    def save_prompt(self, name: str, prompt: str, negative_prompt: str = "", *, overwrite: bool = False) -> SavedPrompt:
        """Keep both prompts under a name.

        Raises:
            InputError: `invalid_value` for a name that is empty, too long or that of a bundled prompt; `empty_prompt`;
                `output_exists`, when another is saved under the name and overwrite is not given.
            SetupError, CriticalError: the file cannot be written.
        """
        saved = SavedPrompt(one_line(name), prompt.strip(), negative_prompt.strip())
        check_saved(saved)

        def save(words: OwnWords) -> None:
            others = [own for own in words.prompts if own.name.lower() != saved.name.lower()]
            if len(others) < len(words.prompts) and not overwrite:
                raise InputError(
                    "output_exists",
                    f"A prompt is saved under {saved.name!r} already.",
                    ["Press again to replace it", "Choose another name"],
                )
            own = OwnPrompt(name=saved.name, prompt=saved.prompt, negative_prompt=saved.negative_prompt)
            words.prompts = [*others, own]

        self._change(save)
        return saved

    def remove_prompt(self, name: str) -> None:
        """Forget a saved prompt. Raises InputError `invalid_value`, when the user has none of that name."""

        def remove(words: OwnWords) -> None:
            kept = [own for own in words.prompts if own.name != name]
            if len(kept) == len(words.prompts):
                raise InputError("invalid_value", f"You saved no prompt as {name!r}.", ["Choose one of your own"])
            words.prompts = kept

        self._change(remove)

    def _change(self, change: Callable[[OwnWords], None]) -> None:
        """Read, change and write as one step, also beside other processes."""
        with typed_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock")):
                words = self._read().model_copy(deep=True)
                change(words)
                content = json.dumps(words.model_dump(by_alias=True), indent=1, ensure_ascii=False) + "\n"
                with written_whole(self.path) as temporary:
                    temporary.write_text(content, encoding="utf-8")

    def _read(self) -> OwnWords:
        """As the file is now; a damaged one is put aside, and said to be in `problem`."""
        try:
            status = self.path.stat()
            if (status.st_mtime_ns, status.st_size) != self._read_at:
                self._words = OwnWords.model_validate_json(self.path.read_bytes())
                self._read_at = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            self._words, self._read_at = OwnWords(), None
        except (ValidationError, OSError) as error:
            self._words, self._read_at = OwnWords(), None
            self.problem = put_aside(self.path, error)
        return self._words


def put_aside(path: Path, error: ValidationError | OSError) -> str:
    """Give an unreadable file another name, so that nothing in it is lost when the next is written."""
    reason = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error.strerror
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}.json")
    try:
        path.rename(aside)
    except OSError as second:
        raise InputError(
            "invalid_value",
            f"Your prompts in {path} cannot be read ({reason}), and the file cannot be renamed ({second.strerror}).",
            [f"Mend or move away {path}"],
        ) from second
    return f"Your prompts could not be read ({reason}). The file was kept as {aside.name}, in {aside.parent}."


def check_saved(saved: SavedPrompt) -> None:
    if not 0 < len(saved.name) <= LONGEST_NAME:
        raise InputError(
            "invalid_value", f"The name {saved.name!r:.100} is empty or too long.", ["Give a short name to the prompt"]
        )
    if saved.name.lower() in (one.name.lower() for one in bundled().prompts):
        raise InputError("invalid_value", f"{saved.name!r} is a prompt of vidkit's own.", ["Choose another name"])
    if not saved.prompt:
        raise InputError("empty_prompt", "There is no prompt to save.", ["Write the prompt first"], ["prompt"])


def one_line(text: str) -> str:
    return " ".join(text.split())


def added_to(prompt: str, words: str) -> str:
    """A prompt with words behind it after a comma; unchanged when they are there already as a part of their own."""
    there = {part.strip().lower() for part in prompt.split(",")}
    missing = [part.strip() for part in words.split(",") if part.strip() and part.strip().lower() not in there]
    start = prompt.rstrip().rstrip(",")
    return ", ".join([*([start] if start.strip() else []), *missing]) if missing else prompt
