"""``key=value`` on the command line: checked against the config, then applied."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .options import NULLABLE, ConfigError, suggestion

_ABSENT = object()


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Apply ``key=value`` overrides in place, in hydra's syntax, as ``LazyConfig`` does.

    A key must be in the config, or be a parameter of the function or class whose arguments it is
    among (``model.head.num_convs=4`` where the config leaves that at its default). A value must be
    of the type of the one that it replaces. Where that is text, everything behind the ``=`` is the
    new text, whatever characters it has; quotes around the whole of it are taken off.

    Returns:
        one line ``key: old -> new`` for each.

    Raises:
        ConfigError: wrong syntax, an unknown key (names the nearest ones) or a wrong type.
    """
    lines = []
    for text in overrides:
        key, raw = _split(text)
        old = _current_value(cfg, key)
        value = _converted(key, _parsed(text, raw, old), old)
        shown = "default" if old is _ABSENT else _plain(old)  # lists and nodes change in place
        OmegaConf.update(cfg, key, value, merge=True)
        lines.append(f"{key}: {shown} -> {_plain(value)}")
    return lines


def _split(text: str) -> tuple[str, str]:
    """Key and value of an override, the value as it was typed."""
    key, equals, raw = text.partition("=")
    if not equals:
        raise ConfigError(f"Override {text!r}: must have the form key=value, without spaces.")
    if not key.strip():
        raise ConfigError(f"Override {text!r}: has no key before the '='; write key=value.")
    if key[:1] in ("+", "~"):
        raise ConfigError(f"Override {text!r}: keys cannot be added or deleted, only set.")
    return key, raw


def _parsed(text: str, raw: str, old: Any) -> Any:
    """The value that ``raw`` stands for, where ``old`` is the one that it replaces."""
    if type(old) is str and not _is_list_for_names(text, raw):
        return _unquoted(raw)
    try:
        parsed = OverridesParser.create().parse_override(f"value={raw}")
    except HydraException as error:
        raise ConfigError(
            f"Cannot understand override {text!r}: {str(error).splitlines()[0]}"
        ) from error
    if parsed.is_sweep_override():
        raise ConfigError(
            f"Override {text!r}: is a sweep over several values, and one run takes one; for a text "
            "with a comma put quotes around it, for a list brackets."
        )
    return parsed.value()


def _is_list_for_names(text: str, raw: str) -> bool:
    """Several data sets may be named where the config names one: ``dataset.names=[a,b]``."""
    return text.partition("=")[0].endswith(".names") and raw.startswith("[")


def _unquoted(raw: str) -> Any:
    if raw == "null":
        return None
    if len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\"":
        return raw[1:-1]
    return raw


def parameters_of(node: DictConfig) -> dict[str, inspect.Parameter] | None:
    """Parameters of a node's ``_target_`` by name; None if it takes any keyword or has none."""
    target = node._get_node("_target_") if "_target_" in node else None
    target = target._value() if target is not None else None
    if isinstance(target, str):
        target = locate(target)
    if inspect.isclass(target):
        return _constructor_parameters(target)
    return _parameters(target) if callable(target) else None


def _constructor_parameters(cls: type) -> dict[str, inspect.Parameter] | None:
    """Of a class and, where its constructor passes on ``**kwargs``, of its bases."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        # Whatever a subclass hands on by name or not, the first one to define it decides.
        signature = inspect.signature(vars(base)["__init__"]).parameters.values()
        for parameter in list(signature)[1:]:
            if parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(parameter.name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in signature):
            return found
    return None


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in found.values()):
        return None
    return dict(found)


def _current_value(cfg: DictConfig, key: str) -> Any:
    """Value at a dotted key, or its default as a parameter.

    Raises:
        ConfigError: there can be no such key.
    """
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth])
        if isinstance(node, ListConfig):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    f"Override of {key}: {here} is a list of {len(node)} elements, "
                    f"so its keys are 0 to {len(node) - 1}, not {part!r}."
                )
            node = node[int(part)]
        elif not isinstance(node, DictConfig):
            raise ConfigError(
                f"Override of {key}: {here} is the value {_plain(node)!r}; there is nothing below."
            )
        elif part in node:
            node = _get(node, part)
        else:
            return _parameter_default(cfg, node, key, parts, depth)
    return node


def _get(node: DictConfig, part: str) -> Any:
    try:
        return node[part]
    except OmegaConfBaseException:  # an interpolation that only the whole run resolves
        found = node._get_node(part)
        return None if found is None else found._value()


def _parameter_default(
    cfg: DictConfig, node: DictConfig, key: str, parts: list[str], depth: int
) -> Any:
    part, here = parts[depth], ".".join(parts[:depth])
    params = parameters_of(node)
    is_leaf = depth == len(parts) - 1
    if "_target_" in node and is_leaf and (params is None or part in params):
        default = _ABSENT if params is None else params[part].default
        return _ABSENT if default is inspect.Parameter.empty else default
    if not len(node) and here and "_target_" in OmegaConf.select(cfg, here.rpartition(".")[0]):
        return _ABSENT  # an argument that is an empty dict can take any keys
    known = list(all_keys(cfg)) + [f"{here}.{name}" for name in params or {}]
    raise ConfigError(f"Unknown key {key}.{suggestion(key, known)}")


def all_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all nodes and values of a config."""
    if isinstance(node, DictConfig):
        for name in map(str, node):
            if name != "_target_":
                key = f"{prefix}{name}"
                yield key
                child = node._get_node(name)
                if isinstance(child, DictConfig) and not child._is_interpolation():
                    yield from all_keys(child, f"{key}.")


def _converted(key: str, value: Any, old: Any) -> Any:
    """``value``, made the type of ``old`` where nothing is lost by it.

    Raises:
        ConfigError: it is of another type.
    """
    if old is _ABSENT or old is None or (isinstance(value, str) and "${" in value):
        return value
    if value is None:
        if key.removeprefix("train.") in NULLABLE or not key.startswith("train."):
            return value
    elif type(old) is str:
        return value  # text, or the list of names that stands for it
    elif _kind(old) == _kind(value):
        return value
    elif type(old) is int and type(value) is float and value.is_integer():
        return int(value)  # 9e4
    elif type(old) is float and type(value) is int:
        return float(value)
    raise _wrong_type(key, value, old)


def _wrong_type(key: str, value: Any, old: Any) -> ConfigError:
    return ConfigError(f"{key}={value}: {_kind(old)} expected, as in {key}={_plain(old)}.")


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple, ListConfig)):
        return "list"
    if isinstance(value, (dict, DictConfig)):
        return "dict"
    return type(value).__name__


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
