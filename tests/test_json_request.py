"""What arrives of a request's JSON, by the desktop client, by shells and by pipes; and what is said of a broken one."""

from __future__ import annotations

import json
import random
import shutil
import subprocess

import pytest
from desktop_client import PROPERTIES, arrived, json_float, split_by_windows, to_json

from vidkit.errors import InputError
from vidkit.json_request import parse_json, refuse_pieces

BASH = shutil.which("bash")
TEXTS = [name for name, value in PROPERTIES.items() if value is None]


def refused(*pieces: str) -> InputError:
    """The error for what arrived as these arguments, as the command line takes them."""
    with pytest.raises(InputError) as caught:
        if len(pieces) > 1:
            refuse_pieces(pieces)
        parse_json(pieces[0], "the argument")
    assert caught.value.suggestions
    return caught.value


# --- the client, as it is in C# and Windows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "arguments"),
    [  # Microsoft's own examples, from "Parsing C command-line arguments"
        (r'"a b c" d e', ["a b c", "d", "e"]),
        (r'"ab\"c" "\\" d', ['ab"c', "\\", "d"]),
        (r'a\\\b d"e f"g h', [r"a\\\b", "de fg", "h"]),
        (r"a\\\"b c d", [r"a\"b", "c", "d"]),
        (r'a\\\\"b c" d e', [r"a\\b c", "d", "e"]),
        (r'a"b"" c d', [r'ab" c d']),
    ],
)
def test_windows_splits_command_lines(line: str, arguments: list[str]) -> None:
    assert split_by_windows(line) == arguments


def test_windows_gives_back_what_python_quotes_for_it() -> None:
    chance = random.Random(3)
    for _ in range(2000):
        arguments = ["".join(chance.choices('a "\\\t{', k=chance.randrange(9))) for _ in range(3)]
        assert split_by_windows(subprocess.list2cmdline(arguments)) == arguments


def test_the_clients_json() -> None:
    """As System.Text.Json writes it: escapes in capitals, halves of letters beyond the basic plane, no spaces."""
    text = to_json({"prompt": "ä😀 'x' \"y\" <b>&+`\n\x01/\\", "guidanceScale": 8.0, "seed": 42})
    assert text == (
        r'{"pipeline":null,"baseModel":null,"motionAdapter":null,"imagePath":null,"prompt":"\u00E4\uD83D\uDE00 '
        r"\u0027x\u0027 \u0022y\u0022 \u003Cb\u003E\u0026\u002B\u0060\n\u0001/\\"
        r'","negativePrompt":null,"numFrames":25,"fps":8,"guidanceScale":8,"motionBucketId":127,'
        r'"numInferenceSteps":25,"decodeChunkSize":4,"seed":42,"outputPath":null}'
    )
    floats = {7.5: "7.5", 0.1: "0.1", 1e7: "1E+07", 1e-5: "1E-05", 12345.678: "12345.678", 1.23456789: "1.2345679"}
    assert {value: json_float(value) for value in floats} == floats


def test_what_the_client_sends_arrives() -> None:
    """Whatever a person types, as long as no text ends in a backslash."""
    chance = random.Random(5)
    letters = "ab \"'\\/{}:,<>&%^!+`\t\n\r\x07äß中😀\u2028"
    for _ in range(500):
        sent = {name: "".join(chance.choices(letters, k=chance.randrange(12))) + "." for name in TEXTS}
        sent |= {"numFrames": chance.randrange(999), "guidanceScale": chance.randrange(80) / 4}
        (argument,) = arrived(sent)
        assert json.loads(argument) == {**PROPERTIES, **sent}


# --- a path that ends in a backslash ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_a_backslash_at_the_end(name: str) -> None:
    """In the midst of the JSON and in its last property; one argument arrives, and the error says what it lacks."""
    (argument,) = arrived({"pipeline": "svd", "prompt": "x", name: "D:\\my models\\svd\\"})
    part = rf'"{name}":"D:\\my models\\svd\"'  # one backslash is lost, so the text does not end
    assert part in argument
    error = refused(argument)
    assert error.code == "invalid_json"
    assert f"broken at a backslash before a quote, at the end of {name} " in error.message
    assert error.suggestions[0] == rf"Give {name} without the backslash at its end: D:\my models\svd"
    assert "vidkit generate -" in error.suggestions[1]


def test_backslashes_at_the_end_of_several() -> None:
    (argument,) = arrived({"baseModel": "D:\\a\\", "motionAdapter": "D:\\b\\", "outputPath": "D:\\c\\\\\\"})
    error = refused(argument)
    assert "at the end of baseModel and motionAdapter and outputPath " in error.message
    assert [line.rsplit(" ", 1)[1] for line in error.suggestions[:3]] == ["D:\\a", "D:\\b", "D:\\c\\\\"[:-1]]


def test_two_backslashes_at_the_end_arrive_as_one() -> None:
    (argument,) = arrived({"baseModel": "D:\\models\\\\", "imagePath": "x", "prompt": "x"})
    assert parse_json(argument, "the argument")["baseModel"] == "D:\\models\\"


def test_quotes_that_are_text_are_no_broken_ones() -> None:
    """Texts that look like it, but are whole."""
    for prompt in ['say "a", "b"', 'the path D:\\","x', '"}', 'a\\","prompt":']:
        text = json.dumps({"prompt": prompt, "imagePath": "x"})
        assert parse_json(text, "the argument")["prompt"] == prompt


def test_a_client_whose_encoder_escapes_quotes_with_backslashes() -> None:
    r"""An encoder that writes \" for a quote in a text: \\" on the command line, which ends the quoted part."""
    request = json.dumps({"prompt": 'say "go now" loud', "imagePath": "x"}, separators=(",", ":"))
    pieces = split_by_windows('"' + request.replace('"', '\\"') + '"')
    assert pieces == [r'{"prompt":"say \go', r'now\ loud","imagePath":"x"}']
    error = refused(*pieces)
    assert "It arrived as 2 arguments" in error.message
    assert "split at a backslash before a quote, inside prompt " in error.message
    assert "vidkit generate -" in error.suggestions[1]


# --- what shells make of it -------------------------------------------------------------------------------------------

#: what arrives; words of the error; words of a remedy
MISHAPS: dict[str, tuple[list[str], str, str]] = {
    "cmd.exe, single quotes": (["'{imagePath:", "photo.jpg,", "prompt:", "slow zoom in}'"], "single quote", "--prompt"),
    "cmd.exe, single quotes, no spaces": (["'{imagePath:photo.jpg,prompt:zoom}'"], "single quote", "In cmd.exe"),
    "single quotes kept around whole JSON": (["'" + '{"prompt": "x"}' + "'"], "single quote", "In cmd.exe"),
    "PowerShell 5": (["{imagePath: photo.jpg, prompt: slow", "zoom", "in}"], "quotes around its names", "PowerShell:"),
    "PowerShell 5, no spaces": (["{imagePath:photo.jpg,prompt:zoom}"], "quotes around its names", "PowerShell:"),
    "a Unix shell, unquoted": (["{imagePath:", "photo.jpg}"], "quotes around its names", "Unix shell:"),
    "a Unix shell, braces expanded": (["imagePath:photo.jpg", "prompt:zoom"], "quotes around its names", "Unix shell:"),
    "spaces, unquoted": (['{"prompt":"slow', 'zoom"}'], "split at its spaces", "PowerShell:"),
    "escaped, unquoted": (['{"imagePath":', '"a.jpg"}'], "split at its spaces", "Unix shell:"),
    "Python's way": (["{'imagePath': 'photo.jpg'}"], "in single quotes", "Unix shell:"),
    "a word processor's quotes": (["{“imagePath”: “photo.jpg”}"], "typographic", 'double quotes: "'),
    "single backslashes": ([r'{"prompt":"x","imagePath":"D:\Images\a.jpg"}'], "alone in imagePath", r"D:\\Images"),
    "single backslash before u": ([r'{"imagePath":"D:\users\a.jpg"}'], "alone in imagePath", r"D:\\Images"),
    "single backslashes that mean something": ([r'{"imagePath":"D:\new\next.jpg"}'], "line break", r"D:\\new"),
    "a line break": (['{"prompt":"two\nlines"}'], "raw line break", r"\n"),
    "two requests": (['{"prompt":"x"} {"prompt":"y"}'], "after its end", "--jsonl"),
    "a comma too many": (['{"prompt":"x",}'], "character 1", "commas"),
    "a number without end": (['{"seed":' + "9" * 5000 + "}"], "digits", "vidkit generate -"),
    "deep nesting": (["[" * 100_000], "nested too deeply", "vidkit generate -"),
}


@pytest.mark.parametrize("mishap", MISHAPS)
def test_mishaps(mishap: str) -> None:
    pieces, cause, remedy = MISHAPS[mishap]
    error = refused(*pieces)
    assert cause in error.message
    assert any(remedy in line for line in error.suggestions)
    assert len(error.message) < 600  # and not all of what was sent
    if len(pieces) > 1:
        assert f"It arrived as {len(pieces)} arguments" in error.message


@pytest.mark.skipif(BASH is None, reason="no bash here")
@pytest.mark.parametrize("mishap", ["a Unix shell, braces expanded", "escaped, unquoted", "a Unix shell, unquoted"])
def test_unix_mishaps_are_what_a_shell_makes(mishap: str) -> None:
    typed = {
        "a Unix shell, braces expanded": '{"imagePath":"photo.jpg","prompt":"zoom"}',
        "escaped, unquoted": r"{\"imagePath\": \"a.jpg\"}",
        "a Unix shell, unquoted": '{"imagePath": "photo.jpg"}',
    }[mishap]
    done = subprocess.run([str(BASH), "-c", f"printf '%s\\n' {typed}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == MISHAPS[mishap][0]


@pytest.mark.parametrize(
    ("typed", "mishap"),
    [
        ("""'{"imagePath": "photo.jpg", "prompt": "slow zoom in"}'""", "cmd.exe, single quotes"),
        ("""'{"imagePath":"photo.jpg","prompt":"zoom"}'""", "cmd.exe, single quotes, no spaces"),
        # Windows PowerShell puts quotes around an argument with spaces, and a backslash before none inside
        ('''"{"imagePath": "photo.jpg", "prompt": "slow zoom in"}"''', "PowerShell 5"),
        ("""{"imagePath":"photo.jpg","prompt":"zoom"}""", "PowerShell 5, no spaces"),
    ],
)
def test_windows_mishaps_are_what_windows_makes(typed: str, mishap: str) -> None:
    assert split_by_windows(typed) == MISHAPS[mishap][0]


def test_a_whole_request_with_more_behind_it_is_no_mishap() -> None:
    refuse_pieces(['{"prompt": "x"}', "too", "much"])
    refuse_pieces(["photo.jpg", "slow zoom"])
    refuse_pieces(["C:photo.jpg", "slow zoom"])


def test_a_files_name_in_place_of_json() -> None:
    error = refused(__file__)
    assert "name of a file" in error.message
    assert error.suggestions[0].endswith(f"--request {__file__}")


# --- cut off, and bytes -----------------------------------------------------------------------------------------------


def test_cut_off_anywhere() -> None:
    """Wherever it ends, a request that lacks its end is told from one that is wrong."""
    whole = to_json({"prompt": "ä😀 \\ x", "imagePath": "D:\\Images\\photo.jpg", "guidanceScale": 1e-5, "seed": -1})
    for end in range(1, len(whole)):
        error = refused(whole[:end])
        assert f"ends in the middle, after {end} characters" in error.message, whole[:end]
    assert "8,191" in error.message and "32,767" in error.message
    assert "vidkit generate -" in error.suggestions[0] and "--request" in error.suggestions[1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_bytes_in_every_encoding_of_json(encoding: str) -> None:
    text = '{"prompt": "größer, 中, 😀",\r\n "imagePath": "photo.jpg"}\r\n'
    assert parse_json(text.encode(encoding), "standard input") == json.loads(text)
    with pytest.raises(InputError, match="Standard input is not valid JSON: the quotes around its names are gone"):
        parse_json("{imagePath: ä}".encode(encoding), "standard input")


def test_bytes_of_an_older_code_page() -> None:
    with pytest.raises(InputError, match=r"not UTF-8 \(byte 0xf6 at position 15\)") as caught:
        parse_json('{"prompt": "grö"}'.encode("cp1252"), "standard input")
    assert any("$OutputEncoding" in line for line in caught.value.suggestions)


def test_line_breaks_are_welcome_in_prompts() -> None:
    assert parse_json(r'{"prompt": "C: \n D:\n", "negativePrompt": "a:\tb"}', "the argument")["prompt"] == "C: \n D:\n"


def test_a_text_that_no_file_can_be_called_is_broken_json_all_the_same() -> None:
    with pytest.raises(InputError) as caught:
        parse_json('{"prompt": "' + "a" * 400 + '",, "seed": 1}', "the argument")
    assert caught.value.code == "invalid_json"
