"""Times of several ways to do the same thing, measured in turn in one process.

A busy machine slows whatever happens to run. Variants therefore take turns (A B A B ...), each
round gives one ratio of every pair, and medians over the rounds are reported.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Run = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """What was measured of one variant.

    Attributes:
        seconds: one entry for each round.
        peak_bytes: largest amount of tensor memory that a run held beyond what was there before.
    """

    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Difference of the upper and the lower quartile over the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True)
class Comparison:
    """Timings by the variants' names; all have as many rounds."""

    timings: dict[str, Timing]

    def ratios(self, numerator: str, denominator: str) -> list[float]:
        """Time of one variant over that of another in each round."""
        pairs = zip(self.timings[numerator].seconds, self.timings[denominator].seconds, strict=True)
        return [one / other for one, other in pairs]

    def ratio(self, numerator: str, denominator: str) -> float:
        """Median of :meth:`ratios`."""
        return statistics.median(self.ratios(numerator, denominator))

    def fastest(self, *names: str) -> str:
        """The name with the smallest median."""
        return min(names, key=lambda name: self.timings[name].median)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; ratios are over the last variant."""
        last = list(self.timings)[-1]
        return {
            name: {
                "median_s": timing.median,
                "spread": timing.spread,
                "seconds": list(timing.seconds),
                "peak_mib": timing.peak_bytes / 2**20,
                f"over {last}": {
                    "median": self.ratio(name, last),
                    "pairs": self.ratios(name, last),
                },
            }
            for name, timing in self.timings.items()
        }


def compare(
    variants: Mapping[str, Run],
    *,
    repeats: int = 9,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    memory: bool = True,
) -> Comparison:
    """Run every variant ``warmup`` times, then all of them in turn ``repeats`` times.

    Args:
        memory: take the peak of tensor memory in one more run of each; else it is 0.

    Raises:
        ValueError: no variants, or no repeats.
    """
    if not variants or repeats < 1:
        raise ValueError(f"nothing to measure: {len(variants)} variants, {repeats} repeats")
    device = torch.device(device)
    for run in variants.values():
        for _ in range(warmup):
            run()
    peaks = {name: peak_memory(run, device) if memory else 0 for name, run in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would hit one variant of a round
    try:
        for _ in range(repeats):
            for name, run in variants.items():
                seconds[name].append(time_once(run, device))
    finally:
        if was_enabled:
            gc.enable()
    return Comparison(
        {name: Timing(tuple(values), peaks[name]) for name, values in seconds.items()}
    )


def time_once(run: Run, device: torch.device) -> float:
    """Seconds of one run: wall clock, on CUDA the time between two events."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def peak_memory(run: Run, device: torch.device) -> int:
    """Bytes of tensors that ``run`` holds at most beyond those that were there before.

    On the CPU from the profiler's record of allocations; scratch space that libraries take for
    themselves is not in it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda x: x[0]):
        held += change
        peak = max(peak, held)
    return peak
