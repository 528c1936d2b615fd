"""Models in pickles (.ckpt, .pt, .bin): what they hold, their tensors, the way to safetensors. Nothing in them runs.

Two guards, each enough alone. The pickle's instructions are first read as plain data, which calls nothing, and all that
weights don't need is refused (`pickle_reader`). Only then does torch open the file, always with `weights_only=True`; it
is never opened without. Headers and refusals need no torch.
"""

from __future__ import annotations

import pickle
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vidkit.errors import SetupError
from vidkit.files import disk_full, next_free_name, typed_write_errors, written_whole
from vidkit.models.files.file_format import DESCRIPTIONS, FETCH_AGAIN, PICKLES, file_format, invalid, quoted
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.models.files.pickle_archive import Pickled, read_archive, read_stream
from vidkit.models.files.pickle_reader import Leftover, RefusedError, TensorEntry, bytes_per_value
from vidkit.models.files.safetensors_header import MAX_TENSORS, Header, read_safetensors_header
from vidkit.models.files.safetensors_writer import write_safetensors

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: torch before could be made to run code in spite of `weights_only=True` (CVE-2025-32434, CVE-2026-24747)
SAFE_TORCH: Final = (2, 10)
#: tables within tables: an IP-Adapter's has two levels
MAX_DEPTH: Final = 4
#: kept free on a disk beside what is written to it
SPARE_BYTES: Final = 64 * 2**20

#: what torch.load raises over a file that it can't or won't read
TORCH_REFUSES: Final = (
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
)

_contents: Final[RememberedByFile[Pickled]] = RememberedByFile(most=16)
#: torch's list of names that stand-ins are given for is one for the whole process
_stand_ins: Final = threading.Lock()


def pickle_header(path: Path) -> Header:
    """The dtype (as safetensors names it, e.g. `"F16"`) and shape of every tensor, by key, without reading a tensor.

    Keys are those of the file's state dict: what is around it (`{"state_dict": ...}`) and training states beside it
    are left out, tables within it are joined with dots, and a `module.` that begins every key is taken off.

    Raises:
        SetupError: `model_not_found` when there is no such file; `invalid_model` when it can't be read, is no pickle,
            refers to anything that weights don't need, or goes beyond the limits.
    """
    return {key: (tensor.dtype, tensor.shape) for key, tensor in _tensors_of(path, _pickled(path)).items()}


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle, by the keys of `pickle_header`, on the CPU. Mapped where the format allows: memory
    fills as they are used, and the file must not be changed meanwhile.

    Raises:
        SetupError: as `pickle_header`; `missing_dependency` when the torch at hand is too old to open pickles safely.
    """
    pickled = _pickled(path)
    expected = _tensors_of(path, pickled)

    import torch

    require_safe_torch(torch.__version__)
    found = flatten(_loaded(path, pickled), torch.Tensor)
    for key, entry in expected.items():
        tensor = found.get(key)
        if (
            tensor is None
            or tuple(tensor.shape) != entry.shape
            or tensor.element_size() != bytes_per_value(entry.dtype)
        ):
            raise invalid(path, f"holds another {quoted(key)} than its pickle says", FETCH_AGAIN)
    return {key: found[key].detach() for key in expected}


def convert_to_safetensors(
    source: Path, target: Path, *, overwrite: bool = False, on_progress: Callable[[float], None] = lambda share: None
) -> Path:
    """Write the tensors of a pickle as a safetensors file, whole or not at all, and return `target`.

    Tensors that share their bytes in the pickle are written each for itself; safetensors knows no sharing.

    Args:
        on_progress: called with the share that is written, between tensors; may raise to stop.

    Raises:
        SetupError: as `read_pickle`; `output_not_writable` when `target` exists and may not be overwritten, or can't
            be written.
        CriticalError: `disk_full`, before anything is written.
    """
    if target.exists() and not overwrite:
        raise SetupError(
            "output_not_writable",
            f"{target} exists already.",
            [f"Choose another name: vidkit models convert {source} {next_free_name(target)}", "Add --overwrite"],
        )
    needed = sum(entry.bytes for entry in _tensors_of(source, _pickled(source)).values())
    with typed_write_errors(target):
        free = shutil.disk_usage(target.absolute().parent).free
        if free < needed + SPARE_BYTES:
            told = f"{target} needs {needed / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB are free there."
            raise disk_full(told, target, needed + SPARE_BYTES)
    tensors = read_pickle(source)
    with typed_write_errors(target), written_whole(target, durable=True) as temporary:
        write_safetensors(temporary, tensors, on_progress)
        if read_safetensors_header(temporary) != pickle_header(source):
            raise invalid(source, "changed while it was converted", "Convert it again.")
    return target


def read_header(path: Path) -> Header:
    """The header of a model file by its content, whatever its name: safetensors or a pickle.

    Raises:
        SetupError: as `read_safetensors_header` and `pickle_header`.
    """
    return pickle_header(path) if file_format(path) in PICKLES else read_safetensors_header(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model file by its content, whatever its name: safetensors or a pickle. On the CPU, mapped.

    Raises:
        SetupError: as `read_header` and `read_pickle`.
    """
    if file_format(path) in PICKLES:
        return read_pickle(path)
    read_safetensors_header(path)  # within the limits, before the library parses it
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise invalid(path, f"is not a usable safetensors file: {error}", FETCH_AGAIN) from error


def require_safe_torch(version: str) -> None:
    """Raises SetupError `missing_dependency` when this version of torch is too old to open pickles safely."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < SAFE_TORCH:
        needed = ".".join(map(str, SAFE_TORCH))
        raise SetupError(
            "missing_dependency",
            f"torch {version} can be made to run code by a pickle; torch {needed} or newer is needed to open one.",
            [f"pip install 'torch>={needed}'", "Use the model in the safetensors format"],
        )


# --- the file -------------------------------------------------------------------------------------------------------


def _pickled(path: Path) -> Pickled:
    found = file_format(path)
    if found not in PICKLES:
        raise invalid(path, f"is no pickle but {DESCRIPTIONS[found]}", FETCH_AGAIN)
    try:
        return _contents.get(path, read_archive if found == "zip archive" else read_stream)
    except RefusedError as problem:
        raise invalid(
            path, f"is not loaded: {problem}", "Use the model in the safetensors format, from a source that you trust."
        ) from problem
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror or error}", "Check the file's permissions.") from error


def _loaded(path: Path, pickled: Pickled) -> Any:
    """What torch reads, with `Leftover` standing for each of the names that were found to be of no use."""
    import torch

    # torch goes by this ending too. A file under a wrong name is read, not mapped.
    misnamed = path.name.endswith(".safetensors")
    mapped = pickled.in_archive and not misnamed
    try:
        with _stand_ins, torch.serialization.safe_globals([(Leftover, name) for name in pickled.leftovers]):
            if misnamed:
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except TORCH_REFUSES as error:
        if "allocate" in str(error):  # out of memory is not the file's fault
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise invalid(path, f"is not loaded: torch refuses it: {reason}", FETCH_AGAIN) from error


# --- the state dict -------------------------------------------------------------------------------------------------


def _tensors_of(path: Path, pickled: Pickled) -> dict[str, TensorEntry]:
    try:
        tensors = flatten(pickled.content, TensorEntry)
    except RefusedError as problem:
        raise invalid(path, f"is not loaded: {problem}", FETCH_AGAIN) from problem
    if not tensors:
        raise invalid(path, "is a pickle without tensors", "Check that this is the model's file.")
    return tensors


def flatten(content: Any, kind: type[T]) -> dict[str, T]:
    """The tensors (objects of `kind`) of what a pickle holds, by the keys that `pickle_header` describes.

    Raises `RefusedError` when there are too many.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors: dict[str, T] = {}
    visits = 0

    def collect(table: Any, prefix: str, depth: int) -> None:
        nonlocal visits
        for name, value in table.items():
            visits += 1
            # visits too: a table can hold one other table many times, and that one again
            if visits > 2 * MAX_TENSORS or depth > MAX_DEPTH:
                raise RefusedError(
                    f"it has more than the {MAX_TENSORS} tensors allowed here, or too many tables in tables"
                )
            if isinstance(value, kind) and isinstance(name, str):
                tensors[prefix + name] = value
            elif isinstance(value, Mapping) and isinstance(name, str):
                collect(value, f"{prefix}{name}.", depth + 1)

    if isinstance(content, Mapping):
        collect(content, "", 1)
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors
