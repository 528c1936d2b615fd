"""Models in pickles: their headers and tensors, what is not taken, and conversion. (Payloads: test_hostile_files.)"""

from __future__ import annotations

import pickle
import random
import struct
import subprocess
import sys
import time
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import overwrite, write_shapes
from safetensors.torch import load_file, save_file

from vidkit.errors import Cancelled, CriticalError, SetupError
from vidkit.models.files import pickles
from vidkit.models.files.pickle_archive import MAX_RECORDS
from vidkit.models.files.pickle_reader import MAX_PICKLE_BYTES
from vidkit.models.files.pickles import (
    convert_to_safetensors,
    pickle_header,
    read_header,
    read_pickle,
    read_tensors,
    require_safe_torch,
)
from vidkit.models.files.safetensors_header import MAX_TENSORS, read_safetensors_header

ROOT = Path(__file__).parent.parent


def saved(path: Path, content: Any, *, old: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    first = torch.randn(4, 5)
    return {
        "first": first,
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "double": torch.randn(2).double(),
        "turned": torch.randn(6, 4).t(),
        "parameter": torch.nn.Parameter(torch.randn(2, 3, 3, 3)),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "whole": torch.arange(6, dtype=torch.int32).view(2, 3),
        "part of the first": first[1:3, ::2],
        "the first again": first,
    }


def expect_refusal(path: Path, *words: str) -> SetupError:
    for read in (pickle_header, read_pickle):
        started = time.perf_counter()
        with pytest.raises(SetupError) as caught:
            read(path)
        assert time.perf_counter() - started < 5
        assert caught.value.code == "invalid_model"
        assert caught.value.suggestions
        for word in (path.name, *words):
            assert word in caught.value.message
        assert len(caught.value.message) < 600
    return caught.value


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].dtype == value.dtype and torch.equal(found[key], value) for key, value in expected.items()
    )


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_header_and_tensors_are_those_that_were_saved(tmp_path: Path, old: bool) -> None:
    path = saved(tmp_path / "model.ckpt", OrderedDict(weights()), old=old)
    assert same(read_pickle(path), weights())
    save_file({key: value.clone().contiguous() for key, value in weights().items()}, tmp_path / "as.safetensors")
    assert dict(pickle_header(path)) == dict(read_safetensors_header(tmp_path / "as.safetensors"))


def test_newer_types_are_read(tmp_path: Path) -> None:
    tensors = {"eight": torch.ones(2).to(torch.float8_e4m3fn), "sixteen": torch.arange(3).to(torch.uint16)}
    path = saved(tmp_path / "model.pt", tensors)
    assert pickle_header(path) == {"eight": ("F8_E4M3", (2,)), "sixteen": ("U16", (3,))}
    assert read_pickle(path)["sixteen"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_keys_are_those_of_the_state_dict(tmp_path: Path, old: bool) -> None:
    one = torch.ones(1)
    cases: list[tuple[Any, set[str]]] = [
        ({"a": one, "steps": 3, "name": "x", "list": [one]}, {"a"}),
        ({"state_dict": {"a": one}, "optimizer_states": [{"state": {0: {"exp_avg": one}}}], "lr": one}, {"a"}),
        ({"state_dict": {"module.a": one, "module.b": one}}, {"a", "b"}),
        ({"module.a": one, "b": one}, {"module.a", "b"}),
        ({"image_proj": {"norm": one}, "ip_adapter": {"1.to_k_ip": one}}, {"image_proj.norm", "ip_adapter.1.to_k_ip"}),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": one}}, {"string_to_param.*"}),
    ]
    for content, keys in cases:
        path = saved(tmp_path / "model.bin", content, old=old)
        assert pickle_header(path).keys() == read_pickle(path).keys() == keys


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_what_training_programs_leave_is_passed_over_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    # as in sd-v1-4.ckpt: a class of the training library as a key, with numpy's numbers in its state
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    checkpoint = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = checkpoint  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
        patch.setitem(sys.modules, "pytorch_lightning.callbacks", types.ModuleType("pytorch_lightning.callbacks"))
        patch.setitem(sys.modules, name, module)
        state = {"monitor": "loss", "best": np.float32(0.5), "scores": np.arange(3), "device": torch.device("cuda:0")}
        content = {"state_dict": {"a": torch.ones(2)}, "callbacks": {checkpoint: state, "kept": checkpoint()}}
        path = saved(tmp_path / "sd-v1-4.ckpt", content, old=old)
    allowed = torch.serialization.get_safe_globals()
    assert pickle_header(path) == {"a": ("F32", (2,))}
    assert read_pickle(path)["a"].tolist() == [1, 1]
    assert not any(module.startswith("pytorch_lightning") for module in sys.modules)
    assert set(torch.serialization.get_safe_globals()) == set(allowed)  # as it was before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # so the stand-ins were needed


def test_a_full_size_header_is_quick_and_needs_no_torch(tmp_path: Path) -> None:
    shapes = {f"model.diffusion_model.blocks.{number}.weight": (1280, 640, 3) for number in range(1_130)}
    path = tmp_path / "full.ckpt"
    with torch.serialization.skip_data():  # the bytes are holes in the file
        torch.save({"state_dict": {key: torch.empty(shape, dtype=torch.half) for key, shape in shapes.items()}}, path)
    assert path.stat().st_size > 5e9
    script = f"""
import sys, time
from pathlib import Path
from vidkit.models.files.pickles import pickle_header
started = time.perf_counter()
header = pickle_header(Path({str(path)!r}))
assert time.perf_counter() - started < 1, time.perf_counter() - started
assert len(header) == {len(shapes)} and set(header.values()) == {{("F16", (1280, 640, 3))}}
assert not {{"torch", "numpy"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    started = time.perf_counter()
    assert read_pickle(path).keys() == shapes.keys()  # mapped
    assert time.perf_counter() - started < 2


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    ones = {"a": torch.ones(2)}
    pickled = saved(tmp_path / "pickle.safetensors", ones)
    older = saved(tmp_path / "older.safetensors", ones, old=True)
    safe = tmp_path / "safe.ckpt"
    save_file(ones, safe)
    for path in (pickled, older, safe):
        assert read_header(path) == {"a": ("F32", (2,))}
        assert same(read_tensors(path), ones)
    with pytest.raises(SetupError, match="a zip archive, the format of torch's pickles"):
        read_safetensors_header(pickled)
    with pytest.raises(SetupError, match="is no pickle but a safetensors file"):
        pickle_header(safe)


# --- how torch is asked ---------------------------------------------------------------------------------------------


def test_torch_opens_a_pickle_once_and_for_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: calls.append(options) or load(*args, **options))
    for old in (False, True):
        read_pickle(saved(tmp_path / "model.ckpt", weights(), old=old))
        assert [options["weights_only"] for options in calls] == [True]
        calls.clear()
    refused = saved(tmp_path / "refused.ckpt", {"a": torch.ones(2), "b": slice(1)})
    with pytest.raises(SetupError):
        read_pickle(refused)
    assert calls == []


def test_what_torch_refuses_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def refuse(*args: Any, **options: Any) -> None:
        calls.append(options)
        raise pickle.UnpicklingError("Weights only load failed")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(SetupError, match="torch refuses it: Weights only load failed") as caught:
        read_pickle(saved(tmp_path / "model.ckpt", weights()))
    assert caught.value.code == "invalid_model"
    assert len(calls) == 1


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0+cu117", "2.6.0", "unknown"])
def test_an_older_torch_opens_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path = saved(tmp_path / "model.ckpt", weights())
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(SetupError, match=r"torch 2\.10 or newer") as caught:
        read_pickle(path)
    assert caught.value.code == "missing_dependency"


def test_newer_versions_of_torch_will_do() -> None:
    for version in ("2.10.0", "2.13.0+cpu", "3.0", torch.__version__):
        require_safe_torch(version)


# --- what is not taken ----------------------------------------------------------------------------------------------


def rezipped(path: Path, change: Callable[[dict[str, bytes]], None], *, compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with other entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_archives_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", {"a": torch.zeros(1000)})
    assert pickle_header(rezipped(path, lambda entries: None))
    cases: dict[str, Callable[[dict[str, bytes]], Any]] = {
        "it holds 'other.pkl'": lambda entries: entries.update({"model/other.pkl": b"x"}),
        "it holds 'elsewhere/data.pkl'": lambda entries: entries.update({"elsewhere/data.pkl": b"x"}),
        "it holds '../data/1'": lambda entries: entries.update({"model/../data/1": b"x"}),
        "it holds 'data/nested.zip/x'": lambda entries: entries.update({"model/data/nested.zip/x": b"x"}),
        "TorchScript": lambda entries: entries.update({"model/constants.pkl": b"x"}),
        "no data.pkl": lambda entries: entries.pop("model/data.pkl"),
        "big-endian": lambda entries: entries.update({"model/byteorder": b"big"}),
        "more than is allowed": lambda entries: entries.update({"model/version": bytes(100_000)}),
        "missing or of another size": lambda entries: entries.update({"model/data/0": bytes(3999)}),
        "bytes of its storage '0' are missing": lambda entries: entries.pop("model/data/0"),
    }
    for words, change in cases.items():
        expect_refusal(rezipped(saved(path, {"a": torch.zeros(1000)}), change), words)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", {"a": torch.zeros(1000)})
    bomb = {"model/data/0": bytes(50 * 2**20)}
    rezipped(path, lambda entries: entries.update(bomb), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    expect_refusal(path, "is compressed")

    whole = saved(path, {"a": 1}).read_bytes()
    end = whole.rindex(b"PK\x06\x06")  # of the directory, with the number of entries
    path.write_bytes(whole[: end + 24] + struct.pack("<QQ", *[MAX_RECORDS + 1] * 2) + whole[end + 40 :])
    expect_refusal(path, f"more than the {MAX_RECORDS}")

    rezipped(saved(path, {"a": 1}), lambda entries: entries.update({"model/data.pkl": bytes(MAX_PICKLE_BYTES + 1)}))
    expect_refusal(path, "'data.pkl' has", "more than is allowed")


def test_entries_that_overlap_or_come_twice_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", {"a": torch.zeros(1000)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("model/data.pkl", b"another")
    expect_refusal(path, "it holds 'model/data.pkl'")

    whole = saved(path, {"a": torch.zeros(1000)}).read_bytes()
    entry = whole.index(b"PK\x01\x02")  # of the first file in the directory; the second is made to point to it too
    second = whole.index(b"PK\x01\x02", entry + 4)
    path.write_bytes(whole[: second + 42] + whole[entry + 42 : entry + 46] + whole[second + 46 :])
    expect_refusal(path, "overlap")


def test_incomplete_archives_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", weights())
    whole = path.read_bytes()
    for changed in (whole[:-1], whole[:-100], whole[: len(whole) // 2], whole[:10], whole + b"x", whole[:-22]):
        path.write_bytes(changed)
        expect_refusal(path)
    path = saved(tmp_path / "older.ckpt", weights(), old=True)
    whole = path.read_bytes()
    for changed in (whole[:-1], whole[:-100], whole[:200], whole[:10], whole + b"x"):
        path.write_bytes(changed)
        expect_refusal(path)


def archive_of(path: Path, program: bytes) -> Path:
    """An archive whose pickle is this program."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + program)
        archive.writestr("model/version", b"3\n")
        archive.writestr("model/data/0", bytes(16))
    return path


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"


def tensor_program(offset: bytes, shape: bytes, strides: bytes, storage: bytes = STORAGE) -> bytes:
    make = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides + b"\x89}tR"
    return b"}X\x01\0\0\0a" + make + b"s."


def test_handmade_programs_are_read_where_they_are_right(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "model.ckpt", tensor_program(b"K\0", b"K\2K\2\x86", b"K\2K\1\x86"))
    assert pickle_header(path) == {"a": ("F32", (2, 2))}
    assert read_pickle(path)["a"].tolist() == [[0, 0], [0, 0]]


HUGE = b"\x8a\x08\0\0\0\0\0\0\0\x10"

PROGRAMS: dict[str, tuple[bytes, str]] = {
    "a tensor of any size from four values": (tensor_program(b"K\0", HUGE + b"\x85", b"K\0\x85"), "impossible shape"),
    "one value seen often": (tensor_program(b"K\0", b"M\xff\xff\x85", b"K\0\x85"), "larger than its data"),
    "strides beyond the data": (tensor_program(b"K\0", b"K\2K\2\x86", b"K\3K\1\x86"), "larger than its data"),
    "offset beyond the data": (tensor_program(b"K\4", b"K\1\x85", b"K\1\x85"), "larger than its data"),
    "negative offset": (tensor_program(b"J\xff\xff\xff\xff", b"K\1\x85", b"K\1\x85"), "impossible shape"),
    "other strides than dimensions": (tensor_program(b"K\0", b"K\1\x85", b"K\1K\1\x86"), "impossible shape"),
    "true as a size": (tensor_program(b"K\0", b"\x88\x85", b"K\1\x85"), "impossible shape"),
    "a tensor of no storage": (tensor_program(b"K\0", b"K\1\x85", b"K\1\x85", b"N"), "malformed tensor"),
    "a storage of another kind": (
        tensor_program(b"K\0", b"K\1\x85", b"K\1\x85", STORAGE.replace(b"storage", b"module\0")),
        "something else than a storage",
    ),
    "one storage in two ways": (
        b"(" + STORAGE + STORAGE.replace(b"Float", b"Half") + b"t.",
        "in two ways",
    ),
    "tables in tables without end": (b"}" + b"q\0X\1\0\0\0ah\0s" + b".", "tables in tables"),
    "two to the thirtieth tables": (
        b"}" + b"".join(b"r" + struct.pack("<I", n) + b"}(X\1\0\0\0aj" + struct.pack("<I", n)
                        + b"X\1\0\0\0bj" + struct.pack("<I", n) + b"u" for n in range(30)) + b".",
        "tables in tables",
    ),
    "keys that take ages to hash": (b"}K\1" + b"q\0h\0\x86" * 60 + b"K\1s.", "as the key of a table"),
    "a million instructions": (b"N0" * 10 + b"]" + b"Na" * 600_000 + b".", "instruction"),
    "no end": (b"}", "broken"),
    "nothing on the stack": (b"s.", "broken"),
    "memory that was never filled": (b"h\1.", "broken"),
    "a text longer than the file": (b"X\xff\xff\xff\x7fa.", "broken"),
    "a class as state of nothing": (b"N}b.", "gives a state"),
    "protocol 4": (b"\x95\x05\0\0\0\0\0\0\0N.", "FRAME"),
    "a name from the stack": (b"\x8c\x02os\x8c\x06system\x93.", "instruction"),
    "an extension": (b"\x82\1.", "EXT1"),
    "an object by its class's name": (b"(cos\nsystem\no.", "os.system"),
    "an instance": (b"(X\2\0\0\0idios\nsystem\n.", "INST"),
    "a call of what is no function": (b"N)R.", "calls what is no function"),
    "a class that needs no call": (b"cposix\nsystem\n.", "posix.system"),
    "a name that looks like torch's": (b"ctorch\nhub.load\n.", "torch.hub.load"),
    "a storage that is called": (b"ctorch\nFloatStorage\n(K\5tR.", "calls"),
    "an array of any size": (b"cbuiltins\nbytearray\nK\5\x85R.", "builtins.bytearray"),
    "text through a decoder": (b"c_codecs\nencode\n(X\1\0\0\0aX\5\0\0\0rot13tR.", "unusual"),
    "numpy's own runner": (b"cnumpy.testing._private.utils\nrunstring\n.", "runstring"),
    "nothing": (b"}.", "without tensors"),
    "a list": (b"].", "without tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_no_model_is_one_typed_error(tmp_path: Path, name: str) -> None:
    program, words = PROGRAMS[name]
    expect_refusal(archive_of(tmp_path / "model.ckpt", program), words)


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    one = torch.ones(1)
    path = saved(tmp_path / "model.ckpt", {str(number): one for number in range(2 * MAX_TENSORS + 1)})
    expect_refusal(path, f"more than the {MAX_TENSORS} tensors")


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_mutated_pickles_are_refused_by_one_error_or_read(tmp_path: Path, old: bool) -> None:
    tensors = {"state_dict": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(5).half()}, "epoch": 3}
    path = saved(tmp_path / "model.ckpt", tensors, old=old)
    original, rng = path.read_bytes(), random.Random(0)
    read = 0
    for _ in range(1_500):
        overwrite(path, mutated(original, rng))
        try:
            header = pickle_header(path)
            found = read_pickle(path)
        except SetupError as error:
            assert error.code == "invalid_model"
            continue
        read += 1
        assert {key: tuple(tensor.shape) for key, tensor in found.items()} == {
            key: row[1] for key, row in header.items()
        }
    assert 100 < read < 1_250  # both ways are taken


def mutated(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = rng.randrange(len(data))
        match rng.choice(["bit", "byte", "copy", "cut"]):
            case "bit":
                data[place] ^= 1 << rng.randrange(8)
            case "byte":
                data[place] = rng.randrange(256)
            case "copy":
                data[place : place + 4] = data[(other := rng.randrange(len(data))) : other + 4]
            case "cut" if rng.random() < 0.1:
                del data[max(place, 1) :]
    return bytes(data)


def test_a_missing_file_is_model_not_found(tmp_path: Path) -> None:
    for read in (pickle_header, read_pickle, read_header, read_tensors):
        with pytest.raises(SetupError, match=r"none\.ckpt") as caught:
            read(tmp_path / "none.ckpt")
        assert caught.value.code == "model_not_found"


# --- conversion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_a_converted_model_holds_the_same(tmp_path: Path, old: bool) -> None:
    source = saved(tmp_path / "model.ckpt", {"state_dict": weights()}, old=old)
    shares: list[float] = []
    target = convert_to_safetensors(source, tmp_path / "model.safetensors", on_progress=shares.append)
    assert same(load_file(target), weights())
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    # as the library itself writes it, to the byte
    clones = {key: value.detach().clone().contiguous() for key, value in weights().items()}
    save_file(clones, tmp_path / "library.safetensors", metadata={"format": "pt"})
    assert target.read_bytes() == (tmp_path / "library.safetensors").read_bytes()
    assert list(tmp_path.glob(".*")) == []


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    source, target = saved(tmp_path / "model.ckpt", weights()), tmp_path / "model.safetensors"
    target.write_text("mine")
    with pytest.raises(SetupError, match="exists already") as caught:
        convert_to_safetensors(source, target)
    assert caught.value.code == "output_not_writable"
    assert target.read_text() == "mine"
    assert same(load_file(convert_to_safetensors(source, target, overwrite=True)), weights())


def test_a_conversion_that_stops_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = saved(tmp_path / "model.ckpt", weights()), tmp_path / "model.safetensors"

    def stop(share: float) -> None:
        if share > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        convert_to_safetensors(source, target, on_progress=stop)
    assert list(tmp_path.iterdir()) == [source]

    with pytest.raises(SetupError) as caught:
        convert_to_safetensors(source, tmp_path / "no folder" / "model.safetensors")
    assert caught.value.code == "output_not_writable"

    usage = types.SimpleNamespace(total=2**40, used=2**40, free=2**20)
    monkeypatch.setattr(pickles.shutil, "disk_usage", lambda folder: usage)  # type: ignore[attr-defined]
    with pytest.raises(CriticalError, match="GiB are free there") as full:
        convert_to_safetensors(source, target)
    assert full.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == [source]


def test_what_is_no_pickle_is_not_converted(tmp_path: Path) -> None:
    source = write_shapes(tmp_path / "model.safetensors", {"a": ("F32", (2,))})
    with pytest.raises(SetupError, match="no pickle but a safetensors file"):
        convert_to_safetensors(source, tmp_path / "again.safetensors")
    page = tmp_path / "model.ckpt"
    page.write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(SetupError, match="a web page"):
        convert_to_safetensors(page, tmp_path / "again.safetensors")
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(SetupError, match="not one of torch's"):
        convert_to_safetensors(plain, tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()
