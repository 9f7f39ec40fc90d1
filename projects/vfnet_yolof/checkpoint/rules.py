"""A small table engine that renames the tensors of a checkpoint and accounts for each of them.

A table is an ordered list of :class:`Rule`. The first rule whose pattern matches a *whole* key
decides what happens to it; a key that no rule matches is reported, never lost.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Replacement = str | Callable[[re.Match[str]], str]

# Patterns of the last part of a key.
WEIGHT_BIAS = "weight|bias"
NORM = "weight|bias|running_mean|running_var|num_batches_tracked"
CONV_OFFSET = "conv_offset\\.(?:weight|bias)"  # of a deformable convolution that predicts its own


class CheckpointError(ValueError):
    """A checkpoint cannot be read, recognised or converted; the message says which one and why."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint and a model do not fit each other."""


@contextmanager
def errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put ``path`` in front of the message of a :class:`CheckpointError` inside of the block."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


@dataclass(frozen=True)
class Rule:
    r"""Rename (or drop) the keys that match ``pattern`` from end to end.

    ``replacement`` is a template for :meth:`re.Match.expand` (``\1``, ``\g<name>``) or a function
    of the match; ``None`` drops the tensor, and then ``reason`` says why.
    """

    pattern: str
    replacement: Replacement | None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.replacement is None and not self.reason:
            raise ValueError(f"rule {self.pattern!r} drops tensors without saying why")


def conv_and_norm(
    prefix: str,
    conv: str,
    norm: str,
    ours: Replacement,
    conv_has: str = WEIGHT_BIAS,
    *,
    ours_conv: str = "",
) -> tuple[Rule, Rule]:
    """Rules of a convolution and of the norm behind it, ``<ours>.norm`` here.

    Args:
        prefix, conv, norm: patterns of their names there: ``prefix + conv`` and ``prefix + norm``.
        ours: as a :class:`Rule` takes it.
        conv_has: pattern of the tensors that the convolution has there.
        ours_conv: "" where ``ours`` is the convolution itself, ".conv" where it has it inside.
    """

    def rule(name: str, parts: str, infix: str) -> Rule:
        pattern = rf"{prefix}{name}\.(?P<part>{parts})"
        if callable(ours):
            return Rule(pattern, lambda m: f"{ours(m)}{infix}.{m['part']}")
        return Rule(pattern, rf"{ours}{infix}.\g<part>")

    norm_has = WEIGHT_BIAS if norm == "gn" else NORM  # a group norm keeps no statistics
    return rule(conv, conv_has, ours_conv), rule(norm, norm_has, ".norm")


# What stands beside the weights in any project's files. Both EMA hooks of the OpenMMLab projects
# swap before saving: the plain names hold the averaged weights, and what mmcv's hook stores as
# "ema_<name with underscores>" is the running copy that training goes on with.
SURROUNDING_RULES: tuple[Rule, ...] = (
    Rule(r"steps|n_averaged|num_updates", None, "counter of averaged weights (EMA, SWA)"),
    Rule(
        r"ema_\w+",
        None,
        "second set of weights kept by the EMA hook (the plain names hold the averaged ones)",
    ),
    Rule(
        r"pixel_(?:mean|std)|data_preprocessor\.(?:mean|std)",
        None,
        "pixel mean and std, set by the configuration",
    ),
)


# Names that this project's own files had in earlier releases.
RENAMED_RULES: tuple[Rule, ...] = (
    Rule(r"((?:.*\.)?head)\.centerness\.(weight|bias)", r"\1.quality.\2"),
)


def present_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping whose keys are by :data:`RENAMED_RULES`; others, and the values, are as they were.

    Raises:
        CheckpointError: it has a tensor under its old name and its present one.
    """
    result = dict(content)
    for key, rule in itertools.product(content, RENAMED_RULES):
        if isinstance(key, str) and (match := re.fullmatch(rule.pattern, key)):
            name = match.expand(str(rule.replacement))
            if name in content:
                raise CheckpointError(f"has {key!r} and {name!r}, which is its name now")
            result[name] = result.pop(key)
    return result


@dataclass(frozen=True)
class Layout:
    """How one project names the tensors of one detector.

    ``signature``: patterns; a checkpoint has this layout when each of them matches at least one key
    completely. ``box_geometry``: the detector's attribute of that name, for layouts whose weights
    mean other boxes under the same names.
    ``zero_biases``: patterns of this project's names; where the source has a weight without such a
    bias, the bias is 0.
    """

    project: str
    detector: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]
    box_geometry: str = ""
    zero_biases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.project} {self.detector}"

    def matches(self, keys: Sequence[str]) -> bool:
        return all(any(re.fullmatch(p, key) for key in keys) for p in self.signature)


@dataclass
class ConversionReport:
    """What became of each source tensor, plus what had to be added for the model.

    ``renamed`` maps source to target key, ``dropped`` maps source key to the reason, ``unmatched``
    lists source keys that no rule knows, ``added`` maps target keys that the source lacks to the
    reason they were filled in. ``entry`` is the name under which the file has the weights.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    entry: str = ""
    layout: str = ""
    description: str = ""

    @property
    def num_source(self) -> int:
        """Number of tensors in the source; every one is renamed, dropped or unmatched."""
        return len(self.renamed) + len(self.dropped) + len(self.unmatched)

    def drop_target(self, target: str, reason: str) -> None:
        """Turn a renamed tensor into a dropped one (the model has no place for it)."""
        for source in [s for s, t in self.renamed.items() if t == target]:
            del self.renamed[source]
            self.dropped[source] = reason

    def summary(self) -> str:
        """Several lines: counts per group of target keys, per reason dropped or added, unknown."""
        lines = [f"layout: {self.layout or 'unknown'}"]
        if self.description:
            lines.append(f"model:  {self.description}")
        where = f" under {self.entry!r}" if self.entry else ""
        lines.append(f"{self.num_source} tensors in the source{where}")
        groups = Counter(_group(target) for target in self.renamed.values())
        lines += [f"  {count:5d} -> {group}" for group, count in groups.items()]
        lines += [f"  {n:5d} dropped: {why}" for why, n in Counter(self.dropped.values()).items()]
        lines += [f"  {n:5d} added: {why}" for why, n in Counter(self.added.values()).items()]
        if self.unmatched:
            lines.append(f"  {len(self.unmatched):5d} unknown: {shorten_list(self.unmatched)}")
        return "\n".join(lines)


def apply_rules(
    state_dict: Mapping[str, torch.Tensor], rules: Sequence[Rule]
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Rename ``state_dict`` by the table ``rules``.

    Returns:
        The renamed tensors (the same tensor objects), and the report.

    Raises:
        CheckpointError: two source keys would get the same name.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    converted: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    report = ConversionReport()
    for key, tensor in state_dict.items():
        match, rule = next(
            ((m, rule) for regex, rule in compiled if (m := regex.fullmatch(key))), (None, None)
        )
        if match is None or rule is None:
            report.unmatched.append(key)
        elif rule.replacement is None:
            report.dropped[key] = rule.reason
        else:
            template = rule.replacement
            target = template(match) if callable(template) else match.expand(template)
            if target in origin:
                raise CheckpointError(
                    f"both {origin[target]!r} and {key!r} would be renamed to {target!r}"
                )
            origin[target] = key
            converted[target] = tensor
            report.renamed[key] = target
    return converted, report


def add_zero_biases(
    converted: dict[str, torch.Tensor], patterns: Sequence[str], report: ConversionReport
) -> None:
    """Add the biases named by ``patterns`` to the weights in ``converted`` that have none."""
    for key in [k for k in converted if k.endswith(".weight")]:
        bias = f"{key.removesuffix('weight')}bias"
        if bias not in converted and any(re.fullmatch(p, bias) for p in patterns):
            converted[bias] = converted[key].new_zeros(len(converted[key]))
            report.added[bias] = "bias that the source does not have: 0"


def shorten_list(names: Sequence[str], limit: int = 8) -> str:
    """The first ``limit`` names, comma separated, and how many more there are.

    Names out of a file may be long, or have line breaks and control characters: they are cut, and
    written as Python writes them.
    """
    shown = ", ".join(
        name if name.isprintable() and len(name) <= 200 else repr(name[:200])
        for name in names[:limit]
    )
    return shown if len(names) <= limit else f"{shown}, ... ({len(names) - limit} more)"


def _group(key: str) -> str:
    """Group for the report: the first two parts of a key, without level and stage numbers."""
    return re.sub(r"\d+$", "", ".".join(key.split(".")[:2]))
