"""Turns, statistics and memory; no test depends on how fast anything is."""

import pytest
import torch
from benchmarks.timing import Comparison, Timing, compare, peak_memory

CPU = torch.device("cpu")


def test_variants_take_turns() -> None:
    calls: list[str] = []
    variants = {name: (lambda name=name: calls.append(name)) for name in "AB"}
    result = compare(variants, repeats=3, warmup=2, memory=False)
    assert "".join(calls) == "AABB" + "ABABAB"
    assert [len(x.seconds) for x in result.timings.values()] == [3, 3]
    assert min(x for t in result.timings.values() for x in t.seconds) > 0


def test_statistics() -> None:
    slow, fast = Timing((2.0, 6.0, 4.0), 0), Timing((1.0, 2.0, 4.0), 2**20)
    comparison = Comparison({"slow": slow, "fast": fast})
    assert slow.median == 4.0
    assert slow.spread == pytest.approx((5.0 - 3.0) / 4.0)
    assert comparison.ratios("slow", "fast") == [2.0, 3.0, 1.0]
    assert comparison.ratio("slow", "fast") == 2.0
    assert comparison.fastest("slow", "fast") == "fast"
    values = comparison.as_dict()
    assert values["slow"]["over fast"] == {"median": 2.0, "pairs": [2.0, 3.0, 1.0]}
    assert values["fast"]["peak_mib"] == 1.0


@pytest.mark.parametrize(("variants", "repeats"), [({}, 3), ({"A": lambda: None}, 0)])
def test_nothing_to_measure(variants, repeats) -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        compare(variants, repeats=repeats)


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(4):
            torch.zeros(256, 1024)

    def together() -> list[torch.Tensor]:
        return [torch.zeros(256, 1024) for _ in range(4)]

    assert peak_memory(one_after_the_other, CPU) == pytest.approx(2**20, rel=0.1)
    assert peak_memory(together, CPU) == pytest.approx(4 * 2**20, rel=0.1)
