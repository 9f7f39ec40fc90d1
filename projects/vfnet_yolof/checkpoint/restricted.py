"""An unpickler that builds tensors, arrays and plain containers, and nothing else.

Checkpoints of other projects pickle their own classes (training logs, configurations) beside the
weights. Such a class is replaced by an inert :class:`Unreadable` type: no module is imported, no
foreign constructor, ``__setstate__`` or ``__reduce__`` target runs. What may be called is a fixed
list of exact names below, so neither dotted names nor attribute chains lead out of it.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

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
    }.items()
}


class Unreadable:
    """Stands where the file has an object of a class that is not read, and does nothing.

    ``class_name``: the class (or function) named in the file.
    """

    class_name = "unknown"

    def __new__(cls, *args: Any, **kwargs: Any) -> Unreadable:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Unreadable:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def _swallow(self, *args: Any) -> None:
        pass

    append = extend = add = update = _swallow

    def __repr__(self) -> str:
        return f"<{self.class_name}, not read>"


class _Callable:
    """An allowed function. Pickle's BUILD can set attributes on functions and classes, not here."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function of the reader")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function of the reader")


class _StorageType(_Callable):
    """Element type of a storage, as the legacy formats name it."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        raise pickle.UnpicklingError("the file builds a storage from values")

    @property
    def dtype(self) -> torch.dtype:
        return self._function

    _dtype = dtype


class _DType:
    """numpy.dtype of plain numbers. NumPy's own ``__setstate__`` trusts what it is given."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.byte_order = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.byte_order = order if order in ("<", ">") else "="

    def numpy(self) -> np.dtype | None:
        """The dtype, or ``None`` when it is not one of numbers (objects, records, text)."""
        if not (self.code[:1] in "biufc?" and len(self.code) <= 3):
            return None
        return np.dtype(self.byte_order + self.code) if self.code != "?" else np.dtype(bool)


class _Array:
    """A numpy.ndarray on its way from the file; :func:`plain` makes it a tensor."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        number_type = dtype.numpy() if isinstance(dtype, _DType) else None
        if number_type is None:
            return
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        flat = np.frombuffer(data, dtype=number_type)
        self.value = flat.reshape(tuple(shape), order="F" if fortran else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    """How protocol 5 writes contiguous arrays."""
    array = _Array()
    array.__setstate__((None, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    number_type = dtype.numpy() if isinstance(dtype, _DType) else None
    if number_type is None:
        return None
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=number_type, count=1)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes. Other encodings would import codec modules by name."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the unexpected encoding {encoding!r}")
    return text.encode("latin1")


_CALLABLES: dict[tuple[str, str], _Callable] = {
    ("collections", "OrderedDict"): _Callable(OrderedDict),
    ("torch._utils", "_rebuild_tensor"): _Callable(torch._utils._rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Callable(torch._utils._rebuild_tensor_v2),
    # nn.Parameter keeps its tensor; gradients and hooks are of no use here.
    ("torch._utils", "_rebuild_parameter"): _Callable(lambda data, *_: data),
    ("torch._utils", "_rebuild_parameter_with_state"): _Callable(lambda data, *_: data),
    ("torch", "Size"): _Callable(torch.Size),
    ("torch", "device"): _Callable(lambda *args: str(args)),
    ("_codecs", "encode"): _Callable(_encode),
    ("numpy", "dtype"): _Callable(_DType),
    ("numpy", "ndarray"): _Callable(_Array),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _CALLABLES[_module, "_reconstruct"] = _Callable(_Array)
    _CALLABLES[_module, "scalar"] = _Callable(_scalar)
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _CALLABLES[_module, "_frombuffer"] = _Callable(_from_buffer)
for _module in ("builtins", "__builtin__"):
    for _type in (set, frozenset, complex):
        _CALLABLES[_module, _type.__name__] = _Callable(_type)


class RestrictedPickle(SimpleNamespace):
    """Stands for the ``pickle`` module in :func:`torch.load`, and unpickles plain files.

    ``replaced``: names of the classes that were replaced by :class:`Unreadable` so far.
    """

    def __init__(self) -> None:
        replaced: set[str] = set()

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                return _resolve(module, name, replaced)

        super().__init__(
            __name__="restricted_pickle",
            Unpickler=Unpickler,
            UnpicklingError=pickle.UnpicklingError,
            replaced=replaced,
        )

    def load(self, stream: io.IOBase, **kwargs: Any) -> Any:
        return self.Unpickler(stream, **kwargs).load()


def _resolve(module: str, name: str, replaced: set[str]) -> Any:
    if allowed := _CALLABLES.get((module, name)):
        return allowed
    if module in ("torch", "torch.storage", "torch.cuda") and name in _DTYPES:
        return _StorageType(_DTYPES[name])
    if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
        return dtype
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        # A tensor inside a plain pickle is itself a small checkpoint.
        return _Callable(lambda data: load_torch(io.BytesIO(data), replaced))
    full_name = f"{module}.{name}"
    replaced.add(full_name)
    return type("Unreadable", (Unreadable,), {"class_name": full_name, "__module__": __name__})


def load_torch(source: Any, replaced: set[str]) -> Any:
    """:func:`torch.load` through the restricted unpickler; adds to ``replaced``."""
    reader = RestrictedPickle()
    try:
        return torch.load(
            source,
            map_location="cpu",
            pickle_module=reader,
            weights_only=False,  # with this pickle module nothing of the file runs
            encoding="latin1",
        )
    finally:
        replaced |= reader.replaced


def load_pickle(stream: io.IOBase, replaced: set[str]) -> Any:
    """A plain pickle, as Detectron2's ``.pkl`` files are; adds to ``replaced``."""
    reader = RestrictedPickle()
    try:
        return reader.load(stream, encoding="latin1")
    finally:
        replaced |= reader.replaced


def plain(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """``value`` with arrays as tensors and mappings as dicts, at any depth."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, _Array):
        array = value.value
        if array is None:
            return Unreadable()
        native = array.astype(array.dtype.newbyteorder("="))
        result: Any = torch.from_numpy(np.ascontiguousarray(native).reshape(array.shape))
    elif torch.is_tensor(value):
        result = value.detach()
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
