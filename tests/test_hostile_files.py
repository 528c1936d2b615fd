"""Files and folders made to run code: put through everything that opens models, none runs, and each is refused.

A payload makes a canary file. That it would is tried first, where the way to do it is plain `pickle`.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import vidkit
from vidkit.errors import SetupError
from vidkit.models.files.folder_safety import check_folder
from vidkit.models.files.pickles import convert_to_safetensors, pickle_header, read_header, read_pickle, read_tensors
from vidkit.models.inspection import inspect

Call = tuple[Callable[..., Any], tuple[Any, ...]]


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Call:
        return self.call


class Built:
    """Makes an object of a class without a call, then sets its state."""

    def __init__(self, cls: type, state: Any) -> None:
        self.made = (cls, state)

    def __reduce__(self) -> tuple[Any, ...]:
        cls, state = self.made
        return cls, (), state


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Not there; what runs makes it."""
    return tmp_path / "canary"


def program(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


def os_system(canary: Path) -> Any:
    return Payload(os.system, f"touch {canary}")


def evaluated(canary: Path) -> Any:
    return Payload(eval, program(canary))


def executed(canary: Path) -> Any:
    return Payload(exec, program(canary))


def another_process(canary: Path) -> Any:
    return Payload(subprocess.call, ["touch", str(canary)])


def opened(canary: Path) -> Any:
    return Payload(builtins.open, str(canary), "w")


def hub_repository(canary: Path) -> Any:
    folder = canary.parent / "hub"
    folder.mkdir(exist_ok=True)
    (folder / "hubconf.py").write_text(f"def model():\n    {program(canary)}\n")
    # as torch.hub.load(folder, "model", source="local") within a pickle, which has no keywords
    return Payload(torch.hub._load_local, str(folder), "model")


def numpys_runner(canary: Path) -> Any:
    from numpy.testing._private.utils import runstring

    return Payload(runstring, program(canary), {})


def pickle_in_a_pickle(canary: Path) -> Any:
    return Payload(pickle.loads, pickle.dumps(os_system(canary)))


def storage_from_bytes(canary: Path) -> Any:
    """How a storage is pickled by itself: bytes that torch loads in turn, whatever they hold."""
    inner = io.BytesIO()
    torch.save(os_system(canary), inner)
    return Payload(torch.storage._load_from_bytes, inner.getvalue())


def tensor_subclass(canary: Path) -> Any:
    return Payload(torch._tensor._rebuild_from_type_v2, exec, torch.Tensor, (program(canary),), {})


def compiled_module(canary: Path) -> Any:
    """A state with a function to call, as an object of a class that torch allows."""
    return Payload(torch._utils._rebuild_parameter, Payload(exec, program(canary)), False, {})


def run_by_name(canary: Path) -> Any:
    import runpy

    script = canary.parent / "script.py"
    script.write_text(program(canary))
    return Payload(runpy.run_path, str(script))


def in_an_ordered_dict(canary: Path) -> Any:
    from collections import OrderedDict

    return Built(OrderedDict, {"hook": os_system(canary)})


PAYLOADS = [
    os_system,
    evaluated,
    executed,
    another_process,
    opened,
    hub_repository,
    numpys_runner,
    pickle_in_a_pickle,
    storage_from_bytes,
    tensor_subclass,
    compiled_module,
    run_by_name,
    in_an_ordered_dict,
]


def beside_weights(payload: Any) -> dict[str, Any]:
    return {"state_dict": {"conv_in.weight": torch.ones(2, 2)}, "callbacks": payload}


def among_weights(payload: Any) -> dict[str, Any]:
    return {"state_dict": {"conv_in.weight": torch.ones(2, 2), "conv_in.bias": payload}}


def zipped(path: Path, content: Any) -> None:
    torch.save(content, path)


def streamed(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def by_text(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


def tarred(path: Path, content: Any) -> None:
    """The format before 2017: a pickle, tensors and storages in a tar archive."""
    with tarfile.open(path, "w") as archive:
        parts = {"pickle": content, "storages": 0, "tensors": 0}
        for name, part in parts.items():
            data = pickle.dumps(part, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def in_another_archive(path: Path, content: Any) -> None:
    """An archive in the place of a tensor's bytes, itself a checkpoint."""
    inner = io.BytesIO()
    torch.save(content, inner)
    torch.save({"conv_in.weight": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/data/1", inner.getvalue())
        archive.writestr("model/nested.zip", inner.getvalue())


def before_weights(path: Path, content: Any) -> None:
    """A pickle first, an archive after it: which of them is read depends on the reader."""
    archive = io.BytesIO()
    torch.save({"conv_in.weight": torch.ones(2)}, archive)
    path.write_bytes(pickle.dumps(content, protocol=2) + archive.getvalue())


FORMATS = [zipped, streamed, plain, by_text, tarred, in_another_archive, before_weights]
NAMES = ["model.ckpt", "model.safetensors", "model.bin", "model.pt", "diffusion_pytorch_model.fp16.bin"]


def everything_that_opens_a_file(path: Path) -> list[SetupError]:
    """The errors of each; what raises none, or another, fails the test that calls it."""
    target = path.with_name("converted.safetensors")
    request = {"image_path": "example:photo", "prompt": "x", "output_path": str(path.with_name("clip.mp4"))}
    ways: list[Callable[[], Any]] = [
        lambda: inspect(path),
        lambda: read_header(path),
        lambda: pickle_header(path),
        lambda: read_pickle(path),
        lambda: read_tensors(path),
        lambda: convert_to_safetensors(path, target),
        lambda: vidkit.generate({**request, "pipeline": "svd", "base_model": str(path)}),
        lambda: vidkit.generate({**request, "pipeline": "animatediff", "base_model": str(path)}),
        lambda: vidkit.generate({**request, "pipeline": "animatediff", "motion_adapter": str(path)}),
        lambda: vidkit.generate({**request, "pipeline": "animatediff", "loras": f"{path}:0.5"}),
    ]
    errors = []
    for way in ways:
        with pytest.raises(SetupError) as caught:
            way()
        assert caught.value.code == "invalid_model"
        errors.append(caught.value)
    assert not target.exists()
    return errors


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_does_run_where_nothing_stops_it(canary: Path, payload: Callable[[Path], Any]) -> None:
    try:
        pickle.loads(pickle.dumps(among_weights(payload(canary))))  # noqa: S301
    except Exception:  # noqa: BLE001  (what comes after the canary does not matter)
        assert canary.exists()
    assert canary.exists()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_runs_in_a_file(tmp_path: Path, canary: Path, payload: Callable[[Path], Any]) -> None:
    for number, around in enumerate((beside_weights, among_weights)):
        path = tmp_path / f"model{number}.ckpt"
        zipped(path, around(payload(canary)))
        for error in everything_that_opens_a_file(path):
            assert path.name in error.message
        assert not canary.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_no_payload_runs_in_any_format_under_any_name(
    tmp_path: Path, canary: Path, form: Callable[[Path, Any], None], name: str
) -> None:
    form(tmp_path / name, beside_weights(os_system(canary)))
    everything_that_opens_a_file(tmp_path / name)
    assert not canary.exists()


def test_a_program_of_torchs_own_is_no_model(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    for error in everything_that_opens_a_file(path):
        assert "TorchScript" in error.message


def test_a_whole_module_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(torch.nn.Linear(2, 2), path)
    for error in everything_that_opens_a_file(path):
        assert "'torch.nn.modules.linear.Linear'" in error.message


def test_a_pickle_in_a_tensors_bytes_stays_bytes(tmp_path: Path, canary: Path) -> None:
    inner = io.BytesIO()
    torch.save(os_system(canary), inner)
    data = torch.frombuffer(bytearray(inner.getvalue()), dtype=torch.uint8)
    path = tmp_path / "model.ckpt"
    torch.save({"conv_in.weight": data}, path)
    target = convert_to_safetensors(path, tmp_path / "model.safetensors")
    for file in (path, target):
        assert torch.equal(read_tensors(file)["conv_in.weight"], data)
        with pytest.raises(SetupError):
            inspect(file)  # of no known kind
    assert not canary.exists()


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, tiny_svd_folder: Path) -> Path:
    """A sound model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_svd_folder, tmp_path / "model"))


def changed(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def module(file: Path, canary: Path) -> None:
    """A module that runs when it is imported."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{program(canary)}\nclass Evil:\n    pass\n")


@contextmanager
def unopened(*files: Path) -> Iterator[None]:
    """None of these is opened meanwhile."""
    seen: list[str] = []
    names = {os.path.realpath(file) for file in files}
    watching = [True]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(args[0], str) and os.path.realpath(args[0]) in names:
            seen.append(args[0])

    sys.addaudithook(watch)
    yield
    watching.clear()  # an audit hook cannot be taken off
    assert seen == []


def names_os_system(model: Path, canary: Path) -> None:
    changed(model / "model_index.json", unet=["os", "system"])


def names_a_process(model: Path, canary: Path) -> None:
    changed(model / "model_index.json", scheduler=["subprocess", "Popen"])


def names_a_module_beside_it(model: Path, canary: Path) -> None:
    module(model / "unet" / "evil.py", canary)
    changed(model / "model_index.json", unet=["evil", "Evil"])


def names_a_class_that_is_known_in_a_module_of_its_own(model: Path, canary: Path) -> None:
    module(model / "unet" / "evil.py", canary)
    changed(model / "model_index.json", unet=["evil", "UNetSpatioTemporalConditionModel"])


def brings_a_pipeline(model: Path, canary: Path) -> None:
    module(model / "pipeline.py", canary)
    changed(model / "model_index.json", _class_name=["pipeline", "Evil"])


def brings_a_pipeline_that_nothing_names(model: Path, canary: Path) -> None:
    module(model / "None.py", canary)  # what diffusers looks for when it is given no custom pipeline


def brings_a_module_hidden_by_its_letters(model: Path, canary: Path) -> None:
    module(model / "unet" / "EVIL.PY", canary)


def maps_to_its_own_code(model: Path, canary: Path) -> None:
    module(model / "image_encoder" / "modeling_evil.py", canary)
    changed(model / "image_encoder" / "config.json", auto_map={"AutoModel": "modeling_evil.Evil"})


def maps_to_code_elsewhere(model: Path, canary: Path) -> None:
    changed(model / "image_encoder" / "config.json", auto_map={"AutoModel": "someone/repository--modeling.Evil"})


def asks_for_trust(model: Path, canary: Path) -> None:
    changed(model / "unet" / "config.json", trust_remote_code=True)


def asks_for_trust_deep_within(model: Path, canary: Path) -> None:
    changed(model / "image_encoder" / "config.json", vision_config={"sub": [{"auto_map": {"AutoConfig": "e.Evil"}}]})


def asks_for_a_kernel(model: Path, canary: Path) -> None:
    changed(model / "image_encoder" / "config.json", _attn_implementation="someone/kernel")


def names_an_unknown_class(model: Path, canary: Path) -> None:
    changed(model / "unet" / "config.json", _class_name="Evil")


def has_a_tokenizer_of_its_own(model: Path, canary: Path) -> None:
    module(model / "tokenizer" / "tokenization_evil.py", canary)
    changes = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}
    (model / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(changes))


def has_a_tokenizer_of_another_class(model: Path, canary: Path) -> None:
    (model / "tokenizer").mkdir()
    (model / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')


def has_its_vocabulary_elsewhere(model: Path, canary: Path) -> None:
    (model / "tokenizer").mkdir()
    (model / "tokenizer" / "tokenizer_config.json").write_text('{"vocab_file": "/etc/passwd"}')


def has_a_part_elsewhere(model: Path, canary: Path) -> None:
    changed(model / "model_index.json", **{"../elsewhere": ["diffusers", "AutoencoderKL"]})


def has_weights_elsewhere(model: Path, canary: Path) -> None:
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.move(weights, model.parent / "secret.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "../../secret.safetensors"}}
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def has_weights_at_an_absolute_path(model: Path, canary: Path) -> None:
    index = {"weight_map": {"conv_in.weight": str(model.parent / "secret.safetensors")}}
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))


def leads_out_by_a_link(model: Path, canary: Path) -> None:
    secret = shutil.move(model / "unet" / "config.json", model.parent / "secret.json")
    (model / "unet" / "config.json").symlink_to(secret)


def leads_out_by_a_linked_folder(model: Path, canary: Path) -> None:
    secret = shutil.move(model / "vae", model.parent / "secret")
    (model / "vae").symlink_to(secret)


def leads_in_a_circle(model: Path, canary: Path) -> None:
    (model / "unet" / "config.json").unlink()
    (model / "unet" / "config.json").symlink_to("config.json")


def leads_nowhere(model: Path, canary: Path) -> None:
    (model / "unet" / "config.json").unlink()
    (model / "unet" / "config.json").symlink_to("gone.json")


def has_a_pipe_that_never_ends(model: Path, canary: Path) -> None:
    (model / "unet" / "config.json").unlink()
    os.mkfifo(model / "unet" / "config.json")


def is_quantized(model: Path, canary: Path) -> None:
    changed(model / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes"})


def names_the_base_of_an_adapter(model: Path, canary: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "someone/else"}
    (model / "image_encoder" / "adapter_config.json").write_text(json.dumps(config))


def holds_pickles_alone(model: Path, canary: Path) -> None:
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(among_weights(os_system(canary)), model / "unet" / "diffusion_pytorch_model.bin")


def has_a_config_without_end(model: Path, canary: Path) -> None:
    (model / "unet" / "config.json").write_text('{"a": ' * 100_000)


def has_a_huge_config(model: Path, canary: Path) -> None:
    (model / "unet" / "config.json").write_text('{"a": "' + "x" * 2**23 + '"}')


SPOILT: dict[Callable[[Path, Path], None], str] = {
    names_os_system: "'os', 'system'",
    names_a_process: "'subprocess', 'Popen'",
    names_a_module_beside_it: "'evil'",
    names_a_class_that_is_known_in_a_module_of_its_own: "'evil'",
    brings_a_pipeline: "'pipeline', 'Evil'",
    brings_a_pipeline_that_nothing_names: "None.py",
    brings_a_module_hidden_by_its_letters: "EVIL.PY",
    maps_to_its_own_code: "auto_map",
    maps_to_code_elsewhere: "auto_map",
    asks_for_trust: "trust_remote_code",
    asks_for_trust_deep_within: "auto_map",
    asks_for_a_kernel: "someone/kernel",
    names_an_unknown_class: "'Evil'",
    has_a_tokenizer_of_its_own: "tokeniz",
    has_a_tokenizer_of_another_class: "LlamaTokenizer",
    has_its_vocabulary_elsewhere: "/etc/passwd",
    has_a_part_elsewhere: "../elsewhere",
    has_weights_elsewhere: "../../secret.safetensors",
    has_weights_at_an_absolute_path: "outside of its folder",
    leads_out_by_a_link: "secret.json",
    leads_out_by_a_linked_folder: "leads out",
    leads_in_a_circle: "leads nowhere",
    leads_nowhere: "leads nowhere",
    has_a_pipe_that_never_ends: "neither a file nor a folder",
    is_quantized: "quantized",
    names_the_base_of_an_adapter: "adapter_config.json",
    holds_pickles_alone: "vidkit models convert",
    has_a_config_without_end: "no usable config",
    has_a_huge_config: "bytes allowed",
}


def test_a_sound_folder_is_fine(model: Path) -> None:
    check_folder(model)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_folder_that_would_run_code_or_read_elsewhere_is_refused(
    model: Path, canary: Path, spoil: Callable[[Path, Path], None]
) -> None:
    check_folder(model)  # what is remembered of it must not hide the change
    spoil(model, canary)
    secrets = [model.parent / name for name in ("secret.json", "secret.safetensors", "/etc/passwd")]
    with unopened(*secrets), pytest.raises(SetupError) as caught:
        check_folder(model)
    assert caught.value.code == "invalid_model"
    assert SPOILT[spoil] in caught.value.message + "".join(caught.value.suggestions)
    assert caught.value.suggestions

    request = {"image_path": "example:photo", "prompt": "x", "output_path": str(model.parent / "clip.mp4")}
    with unopened(*secrets[1:]), pytest.raises(SetupError) as caught:
        vidkit.generate({**request, "pipeline": "svd", "base_model": str(model), "num_inference_steps": 1})
    assert caught.value.code == "invalid_model"
    try:
        inspect(model)
    except SetupError as error:
        assert error.code == "invalid_model"
    assert not canary.exists()
    assert not (model.parent / "clip.mp4").exists()


# --- folders as they are --------------------------------------------------------------------------------------------


def test_the_links_of_the_hubs_cache_are_followed(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--model"
    snapshot = repository / "snapshots" / "0123456789abcdef"
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(file for file in model.rglob("*") if file.is_file())):
        blob = repository / "blobs" / f"{number:064x}"
        shutil.move(file, blob)
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    check_folder(snapshot)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(snapshot)
    check_folder(tmp_path / "models" / "mine")
    assert inspect(snapshot).kind == "Stable Video Diffusion"


def test_weights_may_lie_on_another_disk(model: Path, tmp_path: Path) -> None:
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.symlink_to(shutil.move(weights, tmp_path / "elsewhere.safetensors"))
    check_folder(model)
    config = model / "vae" / "config.json"
    config.symlink_to(shutil.move(config, tmp_path / "elsewhere.json"))
    with pytest.raises(SetupError, match="leads out"):
        check_folder(model)
    check_folder(model, models_folder=tmp_path)


def test_what_diffusers_and_the_published_folders_hold_is_fine(model: Path, tiny_animatediff: Any) -> None:
    for folder in (tiny_animatediff.base, tiny_animatediff.motion_adapter, tiny_animatediff.sparse_controlnet):
        check_folder(folder)
    for folder in (*(Path(vidkit.__file__).parent / "models" / "bundled").iterdir(), model):
        check_folder(folder)
    # as stable-diffusion-v1-5 has it
    changed(
        model / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        image_encoder=[None, None],
        requires_safety_checker=True,
        _name_or_path="someone/else",
    )
    (model / "safety_checker").mkdir()
    (model / "safety_checker" / "pytorch_model.bin").write_bytes(b"a pickle that nothing opens")
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle beside safetensors")
    (model / "tokenizer").mkdir()
    tokenizer = {"special_tokens_map_file": "/home/trainer/special_tokens_map.json", "tokenizer_class": "CLIPTokenizer"}
    (model / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    changed(model / "feature_extractor" / "preprocessor_config.json", feature_extractor_type="CLIPFeatureExtractor")
    (model / ".git").mkdir()
    (model / ".git" / "hook.py").write_text("")
    check_folder(model)


def test_a_folder_is_read_once_until_it_changes(model: Path) -> None:
    for file in model.rglob("*"):
        if file.is_file():
            os.utime(file, ns=(1, 1))
    check_folder(model)
    with unopened(*model.rglob("*.json")):
        check_folder(model)
    changed(model / "unet" / "config.json", auto_map={"AutoModel": "x.Y"})
    with pytest.raises(SetupError, match="auto_map"):
        check_folder(model)


def test_shards_that_are_missing_are_named(model: Path) -> None:
    save_file({"a": torch.ones(1)}, model / "unet" / "part-1.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SetupError, match=r"needs 'part-2\.safetensors'"):
        check_folder(model)
