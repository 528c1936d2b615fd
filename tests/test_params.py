"""The one schema: what it takes, what it refuses and how, and that all its faces agree."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from vidkit.cli import make_parser
from vidkit.errors import InputError
from vidkit.params import (
    MAX_SEED,
    SCHEMA_VERSION,
    GenerationParams,
    Limits,
    bounds_of,
    choices_of,
    plain_type,
    resolve,
    wire_name,
)

LEAST: dict[str, Any] = {"imagePath": "photo.jpg", "prompt": "slow zoom in"}

#: every key that the specification's C# client sends, with a value of its type
SPECIFIED: dict[str, Any] = {
    "pipeline": "animatediff",
    "baseModel": "D:\\models\\realistic-vision\\model.safetensors",
    "motionAdapter": "D:\\models\\animatediff\\",
    "imagePath": "D:\\Images\\photo.jpg",
    "prompt": "slow zoom in",
    "negativePrompt": "blurry",
    "numFrames": 48,
    "fps": 16,
    "guidanceScale": 7.5,
    "motionBucketId": 180,
    "numInferenceSteps": 30,
    "decodeChunkSize": 4,
    "seed": 42,
    "outputPath": "D:\\output\\video_001.mp4",
}

#: what the issue asks for beyond the specification
ADDED = {
    *("width", "height", "strength", "conditioning", "noiseAugStrength", "minGuidanceScale", "maxGuidanceScale"),
    *("speed", "outputFormat", "schemaVersion"),
}

#: (parameter, lowest, highest); the bounds written down a second time, so that a slip in the schema is seen
BOUNDS = [
    ("schemaVersion", 1, SCHEMA_VERSION),
    ("width", 16, 4096),
    ("height", 16, 4096),
    ("numFrames", 2, 1024),
    ("windowFrames", 2, 1024),
    ("fps", 1, 120),
    ("numInferenceSteps", 1, 200),
    ("guidanceScale", 1.0, 30.0),
    ("minGuidanceScale", 1.0, 20.0),
    ("maxGuidanceScale", 1.0, 20.0),
    ("motionBucketId", 0, 255),
    ("noiseAugStrength", 0.0, 1.0),
    ("conditioningScale", 0.0, 2.0),
    ("motionScale", 0, 8),
    ("seed", -1, MAX_SEED),
    ("decodeChunkSize", 1, 1024),
]

LIMITS = Limits(
    model="small",
    defaults={"width": 128, "height": 64, "num_frames": 14, "num_inference_steps": 8},
    ranges={"num_frames": (2, 25), "width": (64, 256)},
    size_multiple=32,
    ignored={"prompt": "it takes no text", "guidance_scale": "it has its own"},
)


def params(**changes: Any) -> GenerationParams:
    return GenerationParams(**{**LEAST, **changes})


def refused(**changes: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        params(**changes)
    return caught.value


def text(number: float) -> str:
    return str(int(number))  # never 2.14748e+09


def snake(key: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in key)


# --- names ----------------------------------------------------------------------------------------------------------


def test_every_field_of_the_specification_is_there_under_its_name() -> None:
    given = GenerationParams(**SPECIFIED)
    assert given.to_wire() == {"schemaVersion": SCHEMA_VERSION, **SPECIFIED}
    assert {wire_name(name) for name in GenerationParams.model_fields} >= ADDED


def test_the_specifications_defaults() -> None:
    given = params()
    assert (given.fps, given.guidance_scale, given.motion_bucket_id) == (8, 7.5, 127)
    assert (given.decode_chunk_size, given.seed, given.strength) == (4, -1, 0.8)


def test_both_spellings_mean_the_same() -> None:
    assert GenerationParams(**{snake(key): value for key, value in SPECIFIED.items()}) == GenerationParams(**SPECIFIED)


def test_both_spellings_at_once_must_agree() -> None:
    assert params(numFrames=4, num_frames=4).num_frames == 4
    error = refused(numFrames=4, num_frames=5)
    assert error.code == "invalid_value"
    assert "4" in error.message and "5" in error.message


def test_null_means_not_given() -> None:
    nulls = dict.fromkeys(
        key for key in (wire_name(name) for name in GenerationParams.model_fields) if key not in LEAST
    )
    given = params(**nulls)
    assert given == params()
    assert given.model_fields_set == {"image_path", "prompt"}


@pytest.mark.parametrize("prompt", [None, "", "  \n"])
def test_null_or_blank_prompt_is_an_empty_prompt(prompt: str | None) -> None:
    assert refused(prompt=prompt).code == "empty_prompt"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("numFrame", "numFrames"),
        ("frames", "numFrames"),
        ("num_frame", "numFrames"),
        ("NumFrames", "numFrames"),
        ("image", "imagePath"),
        ("motionBucket", "motionBucketId"),
        ("decode-chunk-size", "decodeChunkSize"),
        ("negativ_prompt", "negativePrompt"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    error = refused(**{key: 4})
    assert error.code == "unknown_parameter"
    assert repr(key) in error.message and repr(nearest) in error.message
    assert error.suggestions == [f"Use {nearest!r} instead of {key!r}"]


def test_a_key_like_no_other_is_not_guessed_at() -> None:
    error = refused(zzz=1)
    assert "Did you mean" not in error.message
    assert error.suggestions


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("numFrames", "16"),
        ("numFrames", 16.5),
        ("numFrames", True),
        ("seed", "42"),
        ("fps", 8.5),
        ("guidanceScale", "7.5"),
        ("guidanceScale", False),
        ("guidanceScale", float("nan")),
        ("guidanceScale", float("inf")),
        ("prompt", 5),
        ("prompt", ["a"]),
        ("imagePath", 5),
        ("imagePath", ""),
        ("overwrite", "true"),
        ("overwrite", 1),
        ("pipeline", "SVD"),
        ("pipeline", 1),
        ("conditioning", "img2img"),
        ("fit", "cover"),
        ("speed", "slow"),
        ("outputFormat", "avi"),
    ],
)
def test_types_are_strict(key: str, value: Any) -> None:
    error = refused(**{key: value})
    assert error.code == "invalid_value"
    assert error.message.startswith(f"{key} is {value!r}")
    assert error.suggestions[0].startswith(f"Set {key} to ")


def test_a_whole_number_is_a_number() -> None:
    assert params(guidanceScale=7).guidance_scale == 7.0


def test_every_bound_is_in_the_table() -> None:
    bounded = {wire_name(name) for name, info in GenerationParams.model_fields.items() if bounds_of(info)}
    assert bounded == {key for key, *_ in BOUNDS} | {"strength", "turboShare"}


@pytest.mark.parametrize(("key", "lowest", "highest"), BOUNDS)
def test_bounds(key: str, lowest: float, highest: float) -> None:
    for value in (lowest, highest):
        assert getattr(params(**{key: value}), snake(key)) == value
    step = 1 if isinstance(lowest, int) else 0.01
    for value in (lowest - step, highest + step):
        error = refused(**{key: value})
        assert error.code == "out_of_range"
        assert str(value) in error.message
        assert error.suggestions[0].endswith(f" from {text(lowest)} up to {text(highest)}")


def test_strength_excludes_zero() -> None:
    assert params(strength=1.0).strength == 1.0
    for value in (0.0, 1.01):
        error = refused(strength=value)
        assert error.code == "out_of_range"
        assert "above 0 up to 1" in error.suggestions[0]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        GenerationParams(numFrame=4, prompt=" ", fps=0, seed="1", wdth=64)
    message = caught.value.message
    for part in ("'numFrame'", "'wdth'", "prompt is empty", "fps is 0", "seed is '1'", "imagePath is missing"):
        assert part in message
    assert caught.value.code == "unknown_parameter"
    assert len(caught.value.suggestions) == 6


def test_a_missing_prompt_is_told_once() -> None:
    with pytest.raises(InputError) as caught:
        GenerationParams(imagePath="photo.jpg")
    assert caught.value.code == "empty_prompt"
    assert caught.value.message.count("prompt") == 1
    assert len(caught.value.suggestions) == 1


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InputError):
        GenerationParams.model_validate([1, 2])


# --- copies and records ---------------------------------------------------------------------------------------------


def test_a_request_does_not_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        params().fps = 9


def test_replace_is_checked_and_leaves_the_original() -> None:
    original = params(fps=10)
    assert original.replace(fps=12).fps == 12
    assert original.replace(fps=None).fps == 8  # taken back: the default
    assert original.fps == 10
    with pytest.raises(InputError, match="fps is 0"):
        original.replace(fps=0)
    with pytest.raises(InputError, match="'fsp'"):
        original.replace(fsp=12)


def test_wire_round_trip_keeps_what_was_given() -> None:
    original = params(width=128, seed=-1, negativePrompt="", strength=0.8)
    wire = original.to_wire()
    assert set(wire) == {"schemaVersion", *LEAST, "width", "seed", "negativePrompt", "strength"}
    again = GenerationParams(**wire)
    assert again == original
    assert again.model_fields_set == original.model_fields_set | {"schema_version"}


def test_record_round_trip_has_every_parameter() -> None:
    record = GenerationParams(**SPECIFIED).to_record()
    assert set(record) == {wire_name(name) for name in GenerationParams.model_fields}
    assert GenerationParams(**record).to_record() == record


# --- one model's view -----------------------------------------------------------------------------------------------


def test_resolve_fills_what_was_not_given() -> None:
    resolved, notes = resolve(params(height=96), LIMITS)
    assert (resolved.width, resolved.height, resolved.num_frames, resolved.num_inference_steps) == (128, 96, 14, 8)
    assert notes == ["prompt is ignored: it takes no text."]


@pytest.mark.parametrize(
    ("size", "nearest"), [((100, 64), (96, 64)), ((130, 70), (128, 64)), ((128, 16), (128, 32)), ((240, 81), (256, 96))]
)
def test_odd_size_names_the_nearest_valid_one(size: tuple[int, int], nearest: tuple[int, int]) -> None:
    with pytest.raises(InputError) as caught:
        resolve(params(width=size[0], height=size[1]), LIMITS)
    assert caught.value.code == "invalid_size"
    assert f"multiples of 32. The nearest valid size is {nearest[0]}x{nearest[1]}." in caught.value.message
    resolve(params(width=nearest[0], height=nearest[1]), LIMITS)  # and it is valid


@pytest.mark.parametrize(("key", "value", "nearest"), [("numFrames", 26, 25), ("width", 32, 64), ("width", 512, 256)])
def test_a_models_own_range(key: str, value: int, nearest: int) -> None:
    with pytest.raises(InputError) as caught:
        resolve(params(**{key: value}), LIMITS)
    assert caught.value.code == "out_of_range"
    assert f"{key} is {value}; small takes" in caught.value.message
    assert caught.value.suggestions == [f"Set {key} to {nearest}"]


def test_notes_for_what_the_specifications_client_always_sends() -> None:
    everything = {**SPECIFIED, "pipeline": "svd", "numFrames": 14}
    _, notes = resolve(GenerationParams(**everything), LIMITS)
    ignored = [note.split(" is ignored")[0] for note in notes]
    assert ignored == ["motionAdapter", "prompt", "negativePrompt", "guidanceScale"]
    # its empty strings and nulls, and defaults that are nobody's choice, are not worth a note
    quiet = {**LEAST, "negativePrompt": "", "motionAdapter": None, "strength": 0.8}
    assert resolve(GenerationParams(**quiet), LIMITS)[1] == ["prompt is ignored: it takes no text."]
    assert any(
        "strength is ignored: only animatediff with" in note for note in resolve(params(strength=0.5), LIMITS)[1]
    )


# --- the faces agree ------------------------------------------------------------------------------------------------


def generate_options() -> dict[str, argparse.Action]:
    verbs = next(action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    actions = verbs.choices["generate"]._actions
    return {action.dest.removeprefix("param_"): action for action in actions if action.dest.startswith("param_")}


def test_schema_options_and_record_are_one_set() -> None:
    names = set(GenerationParams.model_fields)
    wire = {wire_name(name) for name in names}
    assert set(GenerationParams.model_json_schema(by_alias=True)["properties"]) == wire
    assert set(params().to_record()) == wire
    options = generate_options()
    assert set(options) == names
    for name, action in options.items():
        info = GenerationParams.model_fields[name]
        assert action.option_strings[0] == "--" + name.replace("_", "-")
        assert action.help and action.help.startswith(str(info.description).replace("%", "%%"))
        for choice in choices_of(info):
            assert choice in str(action.metavar)


def test_every_field_says_what_it_is() -> None:
    for name, info in GenerationParams.model_fields.items():
        assert info.description and info.description.endswith("."), name
        extra = info.json_schema_extra
        assert isinstance(extra, dict)
        users = extra["usedBy"]
        assert isinstance(users, list)
        assert users and all(str(user).split("/")[0] in ("svd", "animatediff") for user in users), name
        assert plain_type(info) in (int, float, bool, str)
        if plain_type(info) in (int, float):
            assert bounds_of(info), f"{name} has no bounds"
