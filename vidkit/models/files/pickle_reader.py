"""A pickle of torch's, read as plain data: nothing that it names is looked up, imported or called.

A pickle is a program for a small machine with a stack. This is that machine without its two dangerous instructions:
a name stays a name, and a call becomes what is known of its result (a tensor's dtype and shape), or is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from vidkit.models.files.file_format import quoted
from vidkit.models.files.safetensors_header import BITS_PER_VALUE, MAX_DIMENSIONS, TORCH_DTYPES

#: The pickle of a Stable Diffusion 1.5 has 0.2 MB and 40,000 instructions; with an optimizer's states three times that.
MAX_PICKLE_BYTES: Final = 16 * 2**20
MAX_INSTRUCTIONS: Final = 1_000_000
_MAX_VALUES: Final = 2**44

#: names in torch to dtypes as safetensors names them
_STORAGES: Final = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
#: What training programs leave beside the weights (Stable Diffusion 1.4 and 1.5 hold both): needed for nothing, so that
#: nothing stands in for them. They are not looked up either.
_LEFTOVERS: Final = re.compile(
    r"(pytorch_lightning|lightning\.pytorch|lightning_fabric)\.[a-z_.]+\.[A-Z]\w*"
    r"|numpy\.(core|_core)\.multiarray\.(scalar|_reconstruct)|numpy\.(dtype|ndarray)"
)


class RefusedError(ValueError):
    """The pickle holds what weights don't need, or is broken; the text says what, to stand after the file's name."""


@dataclass(frozen=True)
class Name:
    """What the pickle would import: module.name."""

    path: str


@dataclass(frozen=True)
class Storage:
    """A run of bytes that tensors look into. dtype: "" where each tensor has its own; key: of its bytes in the file."""

    dtype: str
    key: str
    bytes: int


@dataclass(frozen=True)
class TensorEntry:
    """A tensor: its view (shape, strides and offset in values) of a storage."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: Storage

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * bytes_per_value(self.dtype)


class Leftover:
    """Stands for an object of a training program, here and while torch reads: it takes everything and does nothing."""

    def __new__(cls, *args: object, **options: object) -> Leftover:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class PickleReader:
    """Reads pickles one after another from bytes.

    names: of the leftovers met. storages: all that were met, by key.

    Every method raises `RefusedError`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self._instructions = 0
        self.leftovers: set[str] = set()
        self.storages: dict[str, Storage] = {}

    @property
    def position(self) -> int:
        return self._data.tell()

    def read(self) -> Any:
        """The next pickle: dicts, lists, tuples, numbers, texts, with `TensorEntry`, `Name` and `Leftover` in them."""
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            instructions = pickletools.genops(self._data)
            while True:
                instruction, argument, _ = next(instructions)
                self._instructions += 1
                if self._instructions > MAX_INSTRUCTIONS:
                    raise RefusedError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
                if instruction.name == "STOP":
                    return self._stack.pop()
                self._obey(instruction.name, argument)
        except RefusedError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError) as error:  # unpacking, empty stacks, unknown codes
            raise RefusedError(
                f"its pickle is broken: {' '.join(str(error).split())[:120] or 'it ends early'}"
            ) from error

    def _obey(self, instruction: str, argument: Any) -> None:
        if instruction in _CONSTANTS:
            self._stack.append(_CONSTANTS[instruction]())
        elif instruction in _WITH_VALUE:
            self._stack.append(argument)
        elif instruction in _ON_STACK:
            _ON_STACK[instruction](self, argument)
        else:
            raise RefusedError(f"its pickle has the instruction {instruction}, which torch.save does not write")

    # --- the stack --------------------------------------------------------------------------------------------------

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _begin(self, protocol: Any) -> None:
        if protocol != 2:
            raise RefusedError(f"its pickle is of protocol {protocol}, not of torch's, 2")

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _memorize(self, index: Any) -> None:
        self._memo[index] = self._stack[-1]

    def _recall(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, _: Any) -> None:
        items = tuple(self._since_mark())
        self._stack.append(items)

    def _tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) < count:
            raise IndexError
        self._stack[-count:] = [items]

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._list().append(item)

    def _extend(self, _: Any) -> None:
        items = self._since_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if type(self._stack[-1]) is not list:
            raise RefusedError("its pickle appends to what is no list")
        return self._stack[-1]

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items_of([key, value])

    def _set_items(self, _: Any) -> None:
        self._set_items_of(self._since_mark())

    def _set_items_of(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not dict:
            raise RefusedError("its pickle sets items of what is no table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # tuples within tuples take exponential time to hash
            if not isinstance(key, str | bytes | int | Name):
                raise RefusedError(f"its pickle has a {type(key).__name__} as the key of a table")
            self._stack[-1][key] = value

    # --- names and what would be calls ------------------------------------------------------------------------------

    def _name(self, argument: str) -> None:
        path = ".".join(argument.split(" ", 1))  # genops puts a space between module and name
        if _LEFTOVERS.fullmatch(path):
            self.leftovers.add(path)
        elif not (path in _CALLS or _storage_dtype(path) is not None or _dtype(path)):
            raise RefusedError(
                f"its pickle refers to {quoted(path)}, which weights don't need; what it names may run code when it is "
                "opened"
            )
        self._stack.append(Name(path))

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise RefusedError("its pickle calls what is no function")
        if _LEFTOVERS.fullmatch(function.path):
            self._stack.append(Leftover())
        elif function.path in _CALLS:
            self._stack.append(_CALLS[function.path](*arguments))
        else:
            raise RefusedError(f"its pickle calls {quoted(function.path)}")

    def _build(self, _: Any) -> None:
        """The state of an object: of a state dict its versions, of a leftover anything. Neither matters."""
        self._stack.pop()
        if type(self._stack[-1]) not in (dict, Leftover):
            raise RefusedError(f"its pickle gives a state to a {type(self._stack[-1]).__name__}")

    def _storage(self, _: Any) -> None:
        parts = self._stack.pop()
        # in the older format, None follows where a view of a storage stood before torch 0.4
        if not (type(parts) is tuple and len(parts) in (5, 6) and parts[0] == "storage" and parts[5:] in ((), (None,))):
            raise RefusedError("its pickle refers to something else than a storage")
        _, kind, key, _, values = parts[:5]
        dtype = _storage_dtype(kind.path) if type(kind) is Name else None
        if dtype is None or type(key) is not str or not _is_size(values):
            raise RefusedError("its pickle has a malformed storage")
        storage = Storage(dtype, key, values * bytes_per_value(dtype))
        if self.storages.setdefault(key, storage) != storage:
            raise RefusedError(f"its pickle describes the storage {quoted(key)} in two ways")
        self._stack.append(storage)


_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_WITH_VALUE: Final = frozenset({"BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING"})
_ON_STACK: Final[dict[str, Callable[[PickleReader, Any], None]]] = {
    "PROTO": PickleReader._begin,
    "MARK": PickleReader._mark,
    "BINPUT": PickleReader._memorize,
    "LONG_BINPUT": PickleReader._memorize,
    "BINGET": PickleReader._recall,
    "LONG_BINGET": PickleReader._recall,
    "TUPLE": PickleReader._tuple,
    "TUPLE1": lambda reader, _: reader._tuple_of(1),
    "TUPLE2": lambda reader, _: reader._tuple_of(2),
    "TUPLE3": lambda reader, _: reader._tuple_of(3),
    "APPEND": PickleReader._append,
    "APPENDS": PickleReader._extend,
    "SETITEM": PickleReader._set_item,
    "SETITEMS": PickleReader._set_items,
    "GLOBAL": PickleReader._name,
    "REDUCE": PickleReader._call,
    "NEWOBJ": PickleReader._call,
    "BUILD": PickleReader._build,
    "BINPERSID": PickleReader._storage,
}


def _storage_dtype(path: str) -> str | None:
    """The dtype of a storage class; "" for the one without; None for what is no storage class."""
    if path == "torch.storage.UntypedStorage":
        return ""
    return _STORAGES.get(path.removeprefix("torch.")) if path.startswith("torch.") else None


def bytes_per_value(dtype: str) -> int:
    """Of a dtype as safetensors names it; 1 for "", the dtype of plain bytes."""
    return BITS_PER_VALUE[dtype or "U8"] // 8


def _dtype(path: str) -> str | None:
    return TORCH_DTYPES.get(path.removeprefix("torch.")) if path.startswith("torch.") else None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_VALUES


# --- what the functions would have made -----------------------------------------------------------------------------


def _table(*pairs: Any) -> dict[Any, Any]:
    if pairs not in ((), ([],)):
        raise RefusedError("its pickle fills a table in an unusual way")
    return {}


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise RefusedError("its pickle encodes text in an unusual way")
    return text.encode("latin1")


def _size(values: Any = ()) -> tuple[Any, ...]:
    return tuple(values)


def _device(name: Any, *_: Any) -> Leftover:
    return Leftover()


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorEntry:
    """`_*`: whether it needs gradients, hooks, metadata."""
    return _view(storage, storage.dtype if type(storage) is Storage else "", offset, shape, strides)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, dtype: Any, *_: Any
) -> TensorEntry:
    return _view(storage, _dtype(dtype.path) if type(dtype) is Name else None, offset, shape, strides)


def _view(storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any) -> TensorEntry:
    if not dtype or type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise RefusedError("its pickle has a malformed tensor")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, (offset, *shape, *strides))):
        raise RefusedError("its pickle has a tensor of an impossible shape")
    values = storage.bytes // bytes_per_value(dtype)
    held = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # More values than the storage has: one value seen many times, a tensor of any size from a file of any size.
    if held > values or (held and last >= values):
        raise RefusedError("its pickle has a tensor that is larger than its data")
    return TensorEntry(dtype, shape, strides, offset, storage)


def _parameter(tensor: Any, *_: Any) -> TensorEntry:
    if type(tensor) is not TensorEntry:
        raise RefusedError("its pickle has a malformed parameter")
    return tensor


_CALLS: Final[dict[str, Callable[..., Any]]] = {
    "collections.OrderedDict": _table,
    "collections.Counter": _table,
    "_codecs.encode": _encoded,
    "torch.Size": _size,
    "torch.device": _device,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
}
