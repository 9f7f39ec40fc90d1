"""An unpickler that builds tensors, arrays and plain containers, and nothing else.

Checkpoints of other projects pickle their own classes (training logs, configurations) beside the
weights. Such a class is replaced by an inert :class:`Unreadable` type: no module is imported, no
foreign constructor, ``__setstate__`` or ``__reduce__`` target runs. What may be called is a fixed
list of exact names below, so neither dotted names nor attribute chains lead out of it.

Tensors are built in two steps: unpickling gives :class:`TensorRecord`, which says where in the file
the numbers are; :func:`plain` reads them, once everything that the file announces is known to be
there.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .pickles import (
    MAX_CLASSES,
    BoundedStream,
    BoundedUnpickler,
    Budget,
    Function,
    Unreadable,
    checked_key,
)
from .rules import CheckpointError

_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "Untyped": torch.uint8,
    }.items()
}
_MAX_NAME = 500  # letters of a class with its module
_MAX_NESTED = 1  # a tensor inside a plain pickle is itself a small checkpoint


class StorageRecord:
    """The numbers of one or several tensors: ``count`` elements of ``dtype`` somewhere in a file.

    ``read`` returns them as a flat tensor of bytes; the reader of the file sets it.
    """

    def __init__(self, dtype: torch.dtype, count: int, budget: Budget) -> None:
        if not (_is_count(count)):
            raise CheckpointError(f"has a storage of {count!r} elements; the file is damaged")
        self.dtype = dtype
        self.count = count
        self.read: Callable[[], torch.Tensor] | None = None
        self._values: torch.Tensor | None = None
        budget.spend("tensors", self.nbytes)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def values(self) -> torch.Tensor:
        """(nbytes,) uint8; read from the file at the first call."""
        if self._values is None:
            if self.read is None:
                raise CheckpointError("lacks the numbers of a tensor; the file is damaged")
            self._values = self.read()
        return self._values

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a storage")


class TensorRecord:
    """How a tensor lies in a storage; offset and stride (per dimension) count elements of dtype."""

    def __init__(
        self,
        storage: StorageRecord,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        dtype: torch.dtype,
        budget: Budget,
    ) -> None:
        size, stride = tuple(size), tuple(stride)
        if not all(map(_is_count, (offset, *size, *stride))) or not len(size) == len(stride) <= 64:
            raise CheckpointError(f"has a tensor of size {size} and stride {stride}; it is damaged")
        elements = 1
        for length in size:
            elements *= length
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if elements and (last + 1) * dtype.itemsize > storage.nbytes:
            raise CheckpointError(
                f"has a tensor of size {size}, stride {stride} and offset {offset} in a storage of "
                f"{storage.nbytes // dtype.itemsize} elements; the file is damaged"
            )
        budget.spend("tensors as large as they are seen", elements * dtype.itemsize)
        self.storage, self.dtype = storage, dtype
        self.offset, self.size, self.stride = offset, size, stride

    def tensor(self) -> torch.Tensor:
        flat = self.storage.values().view(self.dtype)
        return flat.as_strided(self.size, self.stride, flat.storage_offset() + self.offset)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a tensor")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


class StorageType(Function):
    """Element type of a storage, as the files name it."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        raise pickle.UnpicklingError("the file builds a storage from values")

    @property
    def dtype(self) -> torch.dtype:
        return self._function


class _DType:
    """numpy.dtype of plain numbers. NumPy's own ``__setstate__`` trusts what it is given."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        if not isinstance(code, str | bytes) or len(code) > 100:
            code = ""
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.byte_order = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.byte_order = order if order in ("<", ">") else "="

    def numpy(self) -> np.dtype | None:
        """The dtype, or ``None`` when it is not one of numbers (objects, records, text)."""
        if not (self.code and self.code[0] in "biufc?" and len(self.code) <= 3):
            return None
        return np.dtype(self.byte_order + self.code) if self.code != "?" else np.dtype(bool)


class _Array:
    """A numpy.ndarray on its way from the file; :func:`plain` makes it a tensor."""

    def __init__(self, budget: Budget) -> None:
        self.value: np.ndarray | None = None
        self._budget = budget

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        number_type = dtype.numpy() if isinstance(dtype, _DType) else None
        if number_type is None:
            return
        self._budget.spend("arrays", len(data))  # copied by plain(), however often it is shared
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        flat = np.frombuffer(data, dtype=number_type)
        self.value = flat.reshape(tuple(shape), order="F" if fortran else "C")


class RestrictedUnpickler(BoundedUnpickler):
    """Reads one pickle. ``replaced`` collects the names of classes that are not read."""

    def __init__(
        self,
        stream: BoundedStream,
        budget: Budget,
        replaced: set[str],
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(stream, budget)
        self._replaced = replaced
        self._stand_ins: dict[str, type[Unreadable]] = {}
        self._allowed = _Builder(budget, replaced).table()
        self._persistent_load = persistent_load or super().persistent_load

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent_load(pid)

    def find_class(self, module: str, name: str) -> Any:
        if allowed := self._allowed.get((module, name)):
            return allowed
        if module in ("torch", "torch.storage", "torch.cuda") and name in _DTYPES:
            return StorageType(_DTYPES[name])
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        full_name = f"{module}.{name}"
        if full_name not in self._stand_ins:
            if len(full_name) > _MAX_NAME or len(self._stand_ins) >= MAX_CLASSES:
                raise CheckpointError(
                    f"names more than {MAX_CLASSES} classes, or one of more than {_MAX_NAME} "
                    "letters; the file is damaged or hostile"
                )
            self._replaced.add(full_name)
            content = {"class_name": full_name, "__module__": __name__}
            self._stand_ins[full_name] = type("Unreadable", (Unreadable,), content)
        return self._stand_ins[full_name]


class _Builder:
    """What a file may call; all of it takes memory in proportion to the budget."""

    def __init__(self, budget: Budget, replaced: set[str]) -> None:
        self.budget, self.replaced = budget, replaced

    def table(self) -> dict[tuple[str, str], Function]:
        """Functions by exact module and name."""
        names: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): self.ordered,
            ("torch._utils", "_rebuild_tensor"): self.tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self.tensor_of_type,
            ("torch._tensor", "_rebuild_from_type_v2"): self.with_attributes,
            # nn.Parameter keeps its tensor; gradients and hooks are of no use here.
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
            ("torch.storage", "_load_from_bytes"): self.nested,
            ("torch", "Size"): _size,
            ("torch", "device"): lambda kind, *_: kind if isinstance(kind, str) else "cpu",
            ("_codecs", "encode"): self.encode,
            ("numpy", "dtype"): _DType,
            ("numpy", "ndarray"): self.array,
        }
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            names[module, "_reconstruct"] = self.array
            names[module, "scalar"] = _scalar
        for module in ("numpy.core.numeric", "numpy._core.numeric"):
            names[module, "_frombuffer"] = self.from_buffer
        for module in ("builtins", "__builtin__"):
            names[module, "set"] = lambda items=(): self.collected(set, items)
            names[module, "frozenset"] = lambda items=(): self.collected(frozenset, items)
            names[module, "complex"] = lambda real, imag: complex(float(real), float(imag))
        return {name: Function(function) for name, function in names.items()}

    def ordered(self, items: Any = ()) -> OrderedDict[Any, Any]:
        self.budget.count(len(items))
        return OrderedDict((checked_key(key), value) for key, value in items)

    def collected(self, kind: type, items: Any) -> Any:
        self.budget.count(len(items))
        return kind(map(checked_key, items))

    def encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How protocol 2 writes bytes. Other encodings would import codec modules by name."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes in the unexpected encoding {encoding!r:.40}")
        self.budget.spend("encoded text", len(text))
        return text.encode("latin1")

    def array(self, *_: Any) -> _Array:
        return _Array(self.budget)

    def from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
        """How protocol 5 writes contiguous arrays."""
        array = self.array()
        array.__setstate__((None, shape, dtype, order == "F", data))
        return array

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
        """_rebuild_tensor and _rebuild_tensor_v2; rest: requires_grad, hooks, bits of complex."""
        if not isinstance(storage, StorageRecord) or (len(rest) > 2 and rest[2]):
            return _unread("torch.Tensor of a kind that weights do not have")
        return TensorRecord(storage, offset, shape, stride, storage.dtype, self.budget)

    def tensor_of_type(self, *arguments: Any) -> Any:
        """_rebuild_tensor_v3, for the types that have no storage class of their own."""
        storage, offset, shape, stride, _, _, dtype, *_ = arguments
        if not isinstance(storage, StorageRecord) or not isinstance(dtype, torch.dtype):
            return _unread("torch.Tensor of a kind that weights do not have")
        return TensorRecord(storage, offset, shape, stride, dtype, self.budget)

    def with_attributes(self, function: Any, kind: Any, args: Any, _: Any) -> Any:
        """A tensor that had attributes, which are left out."""
        plain_kinds = ("torch.Tensor", "torch.nn.parameter.Parameter")
        if not isinstance(function, Function) or len(args) > 32:
            raise pickle.UnpicklingError("a tensor that is built by a foreign function")
        if getattr(kind, "class_name", None) not in plain_kinds:
            return _unread("torch.Tensor of a foreign class")
        return function(*args)

    def nested(self, data: Any) -> Any:
        from .torch_files import read_torch

        if self.budget.depth >= _MAX_NESTED:
            raise pickle.UnpicklingError("a checkpoint inside of a checkpoint inside of another")
        self.budget.depth += 1
        try:
            return read_torch(io.BytesIO(data), len(data), self.budget, self.replaced)
        finally:
            self.budget.depth -= 1


def _size(lengths: Any = ()) -> torch.Size:
    if len(lengths) > 64:
        raise pickle.UnpicklingError("a size of more than 64 dimensions")
    return torch.Size(lengths)


def _scalar(dtype: Any, data: Any) -> Any:
    number_type = dtype.numpy() if isinstance(dtype, _DType) else None
    if number_type is None or len(data) != number_type.itemsize:
        return None
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=number_type, count=1)[0].item()


def _unread(name: str) -> Unreadable:
    stand_in = Unreadable()
    stand_in.class_name = name
    return stand_in


def plain(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """``value`` with records and arrays as tensors and mappings as dicts, at any depth."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, TensorRecord):
        result: Any = value.tensor()
    elif isinstance(value, _Array):
        array = value.value
        if array is None:
            return _unread("numpy.ndarray of something else than numbers")
        native = array.astype(array.dtype.newbyteorder("="))
        result = torch.from_numpy(np.ascontiguousarray(native).reshape(array.shape))
    elif isinstance(value, dict):
        result = memo[id(value)] = {}
        result.update((key, plain(item, memo)) for key, item in value.items())
    elif isinstance(value, list):
        result = memo[id(value)] = []
        result.extend(plain(item, memo) for item in value)
    elif type(value) is tuple:
        result = tuple(plain(item, memo) for item in value)
    else:
        return value
    memo[id(value)] = result
    return result
