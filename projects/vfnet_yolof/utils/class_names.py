"""A class is known by its name, not by its number: two lists of class names against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Classes(NamedTuple):
    """``names`` in the order of the class ids, [] where they are not known.

    ``owner``: who has these classes, a file or a data set, as messages call it.
    """

    names: list[str]
    owner: str


UNKNOWN = Classes([], "the data set")


def pair_by_name(source: Sequence[str], target: Sequence[str]) -> dict[int, int]:
    """{index in ``source``: index in ``target``} of the classes that names tell.

    A name counts where each list has it once. ``traffic_light`` is ``traffic light``, as
    MMDetection 1.x and COCO write the same class, where no list has both. Lists that are equal in
    all places agree whatever their names are.
    """
    if list(source) == list(target):
        return {i: i for i in range(len(source))}
    pairs: dict[int, int] = {}
    for spelled in (str, _with_spaces):
        ours = {i: spelled(name) for i, name in enumerate(source) if i not in pairs}
        taken = set(pairs.values())
        theirs = {i: spelled(name) for i, name in enumerate(target) if i not in taken}
        counts, their_counts = Counter(ours.values()), Counter(theirs.values())
        place = {name: i for i, name in theirs.items()}
        once = [i for i, name in ours.items() if counts[name] == their_counts[name] == 1]
        pairs |= {i: place[ours[i]] for i in once}
    return pairs


def order_in(source: Sequence[str], target: Sequence[str]) -> list[int] | None:
    """For each class of ``source`` its index in ``target``; None unless they are the same ones."""
    pairs = pair_by_name(source, target)
    if not len(pairs) == len(source) == len(target):
        return None
    return [pairs[i] for i in range(len(source))]


def differences(ours: Classes, theirs: Classes) -> str:
    """What one list has and the other has not, names that occur twice, or how the order differs."""
    paired = pair_by_name(ours.names, theirs.names)
    found = set(paired.values())
    our_rest = [name for i, name in enumerate(ours.names) if i not in paired]
    their_rest = [name for i, name in enumerate(theirs.names) if i not in found]
    if not our_rest and not their_rest:
        both = enumerate(zip(ours.names, theirs.names, strict=True))
        return next(
            (
                f"class {i} is {a!r} in {ours.owner}, {b!r} in {theirs.owner}"
                for i, (a, b) in both
                if a != b
            ),
            "nothing",
        )
    parts = []
    for rest, others, owner in (
        (our_rest, theirs.names, ours.owner),
        (their_rest, ours.names, theirs.owner),
    ):
        if alone := [name for name in rest if name not in others]:
            parts.append(f"only {owner} has {listed(alone)}")
    for names, owner in (ours, theirs):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            parts.append(f"{owner} has {listed(twice)} more than once")
    parts += _spelling_hints(our_rest, their_rest)
    return "; ".join(parts)


def listed(names: Sequence[str], limit: int = 8) -> str:
    """The names in quotes, separated by commas; after ``limit`` how many more there are."""
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _spelling_hints(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    by_letters = {_letters(name): name for name in theirs}
    alike = [(name, by_letters.get(_letters(name))) for name in ours]
    pairs = [f"{a!r} and {b!r}" for a, b in alike if b is not None and a != b]
    if not pairs:
        return []
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
    return [f"{', '.join(pairs[:3])}{more} differ in spelling only: write them alike"]


def _with_spaces(name: str) -> str:
    return name.replace("_", " ")


def _letters(name: str) -> str:
    """Without case, spaces and punctuation; the name itself where nothing else is in it."""
    return "".join(c for c in name.casefold() if c.isalnum()) or name
