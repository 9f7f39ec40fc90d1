"""YAML configurations are data: they are read without running anything that they name.

Detectron2 reads them with ``yaml.unsafe_load``, which calls whatever a tag such as
``!!python/object/apply`` names, and then instantiates every ``_target_``. Configurations travel
with checkpoints, so both are restricted here. Those in Python (``.py``) are programs and are run.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import OmegaConfGrammarParser, parse

from .allowed_targets import ALLOWED_TARGETS

SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")  # of a LazyConfig
MAX_BYTES = 10 << 20
MAX_NODES = 1_000_000  # with every alias written out; the largest packaged config has 400
_ROOTS = ("detectron2", "fvcore", "torch", "vfnet_yolof")  # of the names that may be looked up


@dataclass(frozen=True)
class Trust:
    """Which callables a YAML configuration may name as ``_target_``, beyond the usual ones.

    The usual ones are :data:`ALLOWED_TARGETS`, the modules of ``torch.nn``, and the optimizers and
    schedulers of ``torch.optim``.

    Attributes:
        prefixes: dotted names; each allows itself and everything below it.
        everything: allow every name, and interpolations that call resolvers.
    """

    prefixes: tuple[str, ...] = ()
    everything: bool = False

    def allows(self, name: str) -> bool:
        """Whether ``name``, a dotted path, may be called."""
        if self.everything or any(f"{name}.".startswith(f"{p}.") for p in self.prefixes):
            return True
        return _is_usual(name)


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    """``--allow`` and ``--trust-config``, for :func:`trust_from`."""
    group = parser.add_argument_group("YAML configurations of other people")
    group.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PREFIX",
        help="classes and functions that the file may name, beyond the usual ones; repeatable",
    )
    group.add_argument(
        "--trust-config",
        action="store_true",
        help="let the file name anything, i.e. run any code: for files that you have read",
    )


def trust_from(args: argparse.Namespace) -> Trust:
    """What the user has allowed with the arguments of :func:`add_trust_arguments`."""
    return Trust(tuple(args.allow), args.trust_config)


def load_yaml(
    path: str | os.PathLike[str], trust: Trust | None = None, text: str | None = None
) -> dict[str, Any]:
    """The mapping that a YAML file holds: plain values, lists and dictionaries.

    Two of Python's tags are read, which Detectron2 writes: ``!!python/tuple`` and, for names that
    are allowed, ``!!python/name``, a class or function that is handed over without being called.

    Args:
        path: the file.
        trust: which names are allowed; with ``everything`` every tag does what it says, i.e. runs
            code.
        text: the YAML, where ``path`` holds it beside other things.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming file, line and what is wrong: no YAML, no mapping, a tag that stands for
            code, a key that occurs twice, or a file that would fill the memory.
    """
    trust = trust or Trust()
    with _yaml_errors(path):
        node = _composed(path, text)
        plain = _PlainLoader("")
        plain.trust = trust
        loader = yaml.UnsafeLoader("") if trust.everything else plain
        try:
            return loader.construct_document(node)
        except (OverflowError, ValueError) as error:  # a date or a number that there is not
            raise ValueError(f"{path}: a value cannot be read: {error}") from error


def load_to_compare(path: str | os.PathLike[str], text: str) -> dict[str, Any]:
    """As :func:`load_yaml`, but every name that a tag hands over stays text: nothing is looked up.

    Raises:
        ValueError: as of :func:`load_yaml`, but for names that are not allowed.
    """
    with _yaml_errors(path):
        return _ComparedLoader("").construct_document(_composed(path, text))


def top_keys(path: str | os.PathLike[str]) -> list[str]:
    """Keys of the mapping that a YAML file holds, whatever is below them.

    Raises:
        FileNotFoundError, ValueError: as of :func:`load_yaml`, but for the tags.
    """
    with _yaml_errors(path):
        return [str(key.value) for key, _ in _composed(path).value]


def load_lazy_yaml(
    path: str | os.PathLike[str], trust: Trust, text: str | None = None
) -> DictConfig:
    """A LazyConfig that was saved as YAML, such as a run's ``config.yaml``.

    Args:
        path, trust, text: as of :func:`load_yaml`.

    Raises:
        FileNotFoundError, ValueError: as of :func:`load_yaml` and :func:`check_targets`.
    """
    content = load_yaml(path, trust, text)
    _check_sections(content, path)
    if not trust.everything:
        check_targets(content, str(path), trust)
    try:
        return OmegaConf.create(content, flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error


def _check_sections(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """What a run is made of are mappings, or references to some."""
    for name in SECTIONS:
        value = content.get(name, {})
        if not isinstance(value, dict) and not (isinstance(value, str) and "${" in value):
            raise ValueError(
                f"{path}: {name} must be a mapping of keys to values, got {str(value)[:100]!r}"
            )


def with_bases(
    path: str | os.PathLike[str], trust: Trust | None = None, _above: tuple[Path, ...] = ()
) -> list[tuple[Path, dict[str, Any]]]:
    """A yacs file and those that it names under ``_BASE_``, from which it inherits, with contents.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one of the files is not readable as data (see :func:`load_yaml`), is not on this
            machine, or inherits from itself.
    """
    file = Path(path).resolve()
    if file in _above:
        raise ValueError(f"{_above[-1]}: _BASE_ leads back to {file.name}, which inherits from it")
    content = load_yaml(path, trust)
    found = [(Path(path), content)]
    bases = content.get("_BASE_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "://" in base:
            raise ValueError(f"{path}: _BASE_ must name files on this machine, got {base!r}")
        inherited = file.parent / os.path.expanduser(base)
        if not inherited.is_file():
            raise FileNotFoundError(f"{path}: _BASE_ names {base}, which does not exist")
        found += with_bases(inherited, trust, (*_above, file))
    return found


def check_targets(content: Any, source: str, trust: Trust) -> None:
    """Refuse configurations that would call what is not known to be harmless.

    Args:
        content: dictionaries, lists and plain values.
        source: where they come from, for messages.
        trust: what may be called.

    Raises:
        ValueError: naming ``source``, the key and the callable.
    """
    for key, value in _leaves(content, ""):
        leaf = key.rpartition(".")[2]
        if leaf == "_target_" and not (isinstance(value, str) and trust.allows(value)):
            raise ValueError(
                f"{source}: {key} names {value!r}, which is not among the classes and functions "
                f"that a YAML configuration may call. If you know it and trust the file, add "
                f"--allow {value}; --trust-config allows everything that the file names"
            )
        if isinstance(value, str) and "${" in value and _calls_resolver(value):
            raise ValueError(
                f"{source}: {key} is {value!r}: only references to other keys are resolved in a "
                "YAML configuration, unless --trust-config is given"
            )


class _PlainLoader(yaml.SafeLoader):
    """``SafeLoader`` with tuples, as lists, and the names that ``trust`` allows."""

    trust = Trust()

    def construct_name(self, name: str, node: yaml.Node) -> Any:
        if not self.trust.allows(name):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"the tag names {name}, which --allow {name} would allow",
                node.start_mark,
            )
        from detectron2.utils.registry import locate

        return locate(name)


class _ComparedLoader(_PlainLoader):
    """``_PlainLoader`` with names as the text that they are."""

    def construct_name(self, name: str, node: yaml.Node) -> str:
        return name


_TAG = "tag:yaml.org,2002:python/"
_PlainLoader.add_constructor(f"{_TAG}tuple", lambda loader, node: loader.construct_sequence(node))
for _loader in (_PlainLoader, _ComparedLoader):
    _loader.add_multi_constructor(f"{_TAG}name:", _loader.construct_name)


@contextmanager
def _yaml_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever can be wrong with YAML, as one sentence that names the file."""
    try:
        yield
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(
            f"{path}, line {line}: {error.problem}. A YAML configuration is read as data and may "
            "not name code by a tag; write the value itself, use a configuration in Python (.py), "
            "or, for a file that you have read, --trust-config"
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None


def _composed(path: str | os.PathLike[str], text: str | None = None) -> yaml.MappingNode:
    """The checked nodes of a file; nothing has been constructed of them."""
    if text is None:
        text = _read_text(Path(path))
    elif len(text) > MAX_BYTES:
        raise ValueError(f"{path}: a configuration of more than {MAX_BYTES >> 20} MiB is none")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        raise ValueError(f"{path} is empty")
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{path}: a configuration is a mapping of keys to values")
    _check_nodes(node, path)
    return node


def _read_text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"config file {path} not found")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES >> 20} MiB: that is no configuration")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def _check_nodes(root: yaml.Node, path: str | os.PathLike[str]) -> None:
    """No alias within itself, no key twice in a mapping, not too many nodes when written out."""
    sizes: dict[int, int | None] = {}  # None while the node is being counted

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise ValueError(f"{path}, line {node.start_mark.line + 1}: contains itself")
        if known:
            return known
        sizes[id(node)] = None
        total = 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, path)
            total += sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(map(size, node.value))
        if total > MAX_NODES:
            raise ValueError(f"{path}: more than {MAX_NODES} values when its aliases are followed")
        sizes[id(node)] = total
        return total

    size(root)


def _check_keys(node: yaml.MappingNode, path: str | os.PathLike[str]) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":binary"):
            raise ValueError(f"{path}, line {line}: a key must be a word or a number")
        if key.value in seen:
            raise ValueError(f"{path}, line {line}: key {key.value!r} occurs twice")
        seen.add(key.value)


def _leaves(content: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of everything that is no dictionary or list; whole ``_target_``s."""
    if key.rpartition(".")[2] == "_target_":
        yield key, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for number, value in enumerate(content):
            yield from _leaves(value, f"{key}.{number}")
    else:
        yield key, content


def _calls_resolver(text: str) -> bool:
    """Whether an interpolation calls a function (``${oc.create:...}``); also if it is no text."""
    try:
        pending = [parse(text)]
    except OmegaConfBaseException:
        return True
    while pending:
        node = pending.pop()
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            return True
        pending += node.getChildren() if hasattr(node, "getChildren") else []
    return False


def _is_usual(name: str) -> bool:
    found = _look_up(name)
    if found is None:
        return False
    canonical = f"{found.__module__}.{found.__qualname__}"
    return canonical in ALLOWED_TARGETS or (inspect.isclass(found) and _is_of_torch(found))


def _is_of_torch(cls: type) -> bool:
    import torch

    kinds = (
        (torch.nn.Module, "torch.nn.modules."),
        (torch.optim.Optimizer, "torch.optim."),
        (torch.optim.lr_scheduler.LRScheduler, "torch.optim."),
    )
    return any(issubclass(cls, base) and cls.__module__.startswith(at) for base, at in kinds)


def _look_up(name: str) -> Any:
    """The class or function called ``name``, of the libraries at hand; None where there is none.

    Only what these libraries themselves define counts, not what they have imported from elsewhere.
    """
    parts = name.split(".")
    if parts[0] not in _ROOTS or not all(part.isidentifier() for part in parts):
        return None
    from detectron2.utils.registry import locate

    try:
        found = locate(name)
    except Exception:  # whatever the import of a module that does not exist raises
        return None
    module = getattr(found, "__module__", None)
    if not isinstance(module, str) or not isinstance(getattr(found, "__qualname__", None), str):
        return None
    return found if module in sys.modules and module.split(".")[0] in _ROOTS else None
