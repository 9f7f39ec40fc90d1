"""Unpickling within bounds: what a file makes the reader do is limited by the file's own size.

A pickle is a program. Even where it can call nothing, nine bytes can announce gigabytes, a shared
tuple nested forty times takes for ever to hash, and a shared list can be copied at every call. So
each read is checked against what is left of the file, what is built is counted, and what is hashed
or called is simple.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import Counter
from typing import IO, Any

from .rules import CheckpointError

# What a file may take beyond its own size: for arrays that are copied, and for small tensors that
# are stored once and seen large (expanded).
MARGIN = 384 << 20
# A checkpoint of a thousand tensors takes 40,000, one with optimizer and two averages 200,000.
MAX_OPERATIONS = 1_000_000
MAX_CLASSES = 1000
_MAX_ARGUMENTS = 32
_MAX_NUMBER_BYTES = 1024
_LONG_TEXT = 1 << 16
_DAMAGED = "the file is damaged, or made to fill the memory; fetch it again from where you trust it"


class Budget:
    """What reading a file of ``size`` bytes may take.

    Kinds of memory are counted each for itself: a tensor's bytes are counted when its storage is
    announced and again at the size at which it is seen.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.depth = 0  # of checkpoints inside of checkpoints
        self.operations = 0
        self._spent: Counter[str] = Counter()

    def count(self, operations: int) -> None:
        """Note steps of the reader.

        Raises:
            CheckpointError: there are more than any checkpoint needs.
        """
        self.operations += operations
        if self.operations > MAX_OPERATIONS:
            raise CheckpointError(
                f"builds more than {MAX_OPERATIONS:,} objects beside the tensors; {_DAMAGED}"
            )

    def spend(self, kind: str, count: int) -> None:
        """Note ``count`` bytes of ``kind``, before they are allocated.

        Raises:
            CheckpointError: together they are more than the file can need.
        """
        self._spent[kind] += count
        if self._spent[kind] > self.size + MARGIN:
            raise CheckpointError(
                f"{kind} would take {self._spent[kind] / 1e9:.1f} GB or more, but the file has "
                f"only {self.size / 1e6:.1f} MB; {_DAMAGED}"
            )


class BoundedStream:
    """A binary file of which ``size`` bytes are left; none can be read beyond them."""

    def __init__(self, stream: IO[bytes] | io.BufferedIOBase, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise CheckpointError(
                f"announces {count:,} bytes where {self.left:,} are left; the file is cut short or "
                "damaged; fetch it again"
            )
        self.left -= count
        data = self._stream.read(count)
        if len(data) < count:
            raise EOFError("the file ends early")
        return data

    def readline(self) -> bytes:
        line = self._stream.readline(self.left)
        self.left -= len(line)
        return line

    def skip(self, count: int) -> int:
        """Pass over ``count`` bytes; returns the position of the first."""
        if not 0 <= count <= self.left:
            raise CheckpointError(
                f"has {self.left:,} bytes where {count:,} should follow; the file is cut short or "
                "damaged; fetch it again"
            )
        position = self._stream.tell()
        self._stream.seek(count, 1)
        self.left -= count
        return position


class Function:
    """An allowed function. Pickle's BUILD can set attributes on functions and classes, not here."""

    __slots__ = ("_function",)
    _function: Any

    def __init__(self, function: Any) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function of the reader")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function of the reader")


class Unreadable:
    """Stands where the file has an object of a class that is not read, and does nothing.

    ``class_name``: the class (or function) named in the file.
    """

    class_name = "unknown"

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


class _Operations(dict[int, Any]):
    """The table of opcodes, which counts how often it is asked."""

    def __init__(self, table: dict[int, Any], budget: Budget) -> None:
        super().__init__(table)
        self.budget = budget

    def __getitem__(self, opcode: int) -> Any:
        self.budget.count(1)
        return super().__getitem__(opcode)

    def __missing__(self, opcode: int) -> Any:
        raise pickle.UnpicklingError(f"opcode {opcode} is not one that checkpoints need")


# Python's own implementation in Python, whose single operations can be replaced; the one in C
# allocates what a pickle announces before it looks whether that is there.
class BoundedUnpickler(pickle._Unpickler):
    """Reads one pickle from a :class:`BoundedStream`; subclasses say what a name stands for.

    :meth:`find_class` must return a :class:`Function`, a subclass of :class:`Unreadable` or a plain
    value. Nothing else is ever called.
    """

    stack: list[Any]
    append: Any
    pop_mark: Any
    read: Any
    readline: Any
    # Not a class variable as in the base: each instance gets a table of its own, which counts.
    dispatch: dict[int, Any] = dict(  # type: ignore[misc]  # (no ClassVar)
        pickle._Unpickler.dispatch
    )
    for _opcode in (
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4),  # a table of this process, not of the file
        *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),  # buffers outside of the file
    ):
        del dispatch[_opcode[0]]

    def __init__(self, stream: BoundedStream, budget: Budget) -> None:
        super().__init__(stream, encoding="latin1")
        self.budget = budget
        self.dispatch = _Operations(type(self).dispatch, budget)

    def find_class(self, module: str, name: str) -> Any:
        raise NotImplementedError

    def _call(self, function: Any, args: Any) -> Any:
        if isinstance(function, type) and issubclass(function, Unreadable):
            return function()
        if isinstance(function, Unreadable):
            return function
        if not isinstance(function, Function) or len(args) > _MAX_ARGUMENTS:
            raise pickle.UnpicklingError(f"the file calls what it may not: {type(function)}")
        return function(*args)

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments: of foreign classes only
        self._load_reduce()

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._call(klass, args))

    def _load_build(self) -> None:
        state = self.stack.pop()
        # Attributes of dictionaries (state_dict's _metadata) are not read.
        if hasattr(self.stack[-1], "__setstate__"):
            self.stack[-1].__setstate__(state)

    def _load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.stack[-1][checked_key(key)] = value

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][checked_key(key)] = value

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({checked_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)})

    def _load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(map(checked_key, items))

    def _load_frozenset(self) -> None:
        self.append(frozenset(map(checked_key, self.pop_mark())))

    def _load_long4(self) -> None:
        count = int.from_bytes(self.read(4), "little", signed=True)
        if not 0 <= count <= _MAX_NUMBER_BYTES:
            raise CheckpointError(f"announces a number of {count:,} bytes; {_DAMAGED}")
        self.append(pickle.decode_long(self.read(count)))

    def _load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _text(self, data: bytes) -> str:
        # One letter beyond Latin-1 makes each letter take two or four bytes.
        if len(data) > _LONG_TEXT and re.search(rb"[\xc4-\xff]", data):
            self.budget.spend("text", 4 * len(data))
        return data.decode("utf-8", "surrogatepass")

    def _load_binunicode(self) -> None:
        self.append(self._text(self.read(int.from_bytes(self.read(4), "little"))))

    def _load_binunicode8(self) -> None:
        self.append(self._text(self.read(int.from_bytes(self.read(8), "little"))))

    def _load_unicode(self) -> None:
        line = self.readline()[:-1]
        if len(line) > _LONG_TEXT and b"\\" in line:
            self.budget.spend("text", 4 * len(line))
        self.append(line.decode("raw-unicode-escape"))

    for _opcode, _own in {
        pickle.REDUCE: _load_reduce,
        pickle.NEWOBJ: _load_reduce,
        pickle.NEWOBJ_EX: _load_newobj_ex,
        pickle.BUILD: _load_build,
        pickle.SETITEM: _load_setitem,
        pickle.SETITEMS: _load_setitems,
        pickle.DICT: _load_dict,
        pickle.ADDITEMS: _load_additems,
        pickle.FROZENSET: _load_frozenset,
        pickle.LONG4: _load_long4,
        pickle.BYTEARRAY8: _load_bytearray8,
        pickle.BINUNICODE: _load_binunicode,
        pickle.BINUNICODE8: _load_binunicode8,
        pickle.UNICODE: _load_unicode,
    }.items():
        dispatch[_opcode[0]] = _own


def checked_key(key: Any) -> Any:
    """``key`` if it is hashed quickly: text, a plain number, or a short tuple of these."""
    if isinstance(key, tuple) and len(key) <= 16 and not any(isinstance(x, tuple) for x in key):
        for part in key:
            checked_key(part)
        return key
    if isinstance(key, int) and key.bit_length() > 60:
        raise CheckpointError(f"has a key of {key.bit_length()} bits; {_DAMAGED}")
    if key is None or isinstance(key, str | bytes | int | float | Unreadable):
        return key
    if type(key).__module__ == "torch":  # a dtype, which is hashed by where it lies
        return key
    raise CheckpointError(f"has a {type(key).__name__} as a key; {_DAMAGED}")
