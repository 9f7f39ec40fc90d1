"""Step schedules. Everything is relative to ``train.max_iter``, so scaling that scales all."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CompositeParamScheduler, MultiStepParamScheduler
from vfnet_yolof.engine.swa import CyclicCosineParamScheduler

# COCO train2017 has 117,266 images with boxes; 16 of them make a batch.
ITERATIONS_PER_EPOCH = 7330


def step_schedule(milestones, epochs, max_iter, warmup_iters=500, warmup_factor=0.1):
    """Learning rate factors 1, 0.1, 0.01, ... after a linear warm-up.

    Args:
        milestones: ends of the constant pieces but the last, in the unit of ``epochs``, whose
            number must exceed that of the pieces.
        epochs: length of the schedule. max_iter: the same in iterations.
        warmup_iters: iterations of warm-up, starting at ``warmup_factor``.
    """
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(milestones) + 1)],
            milestones=list(milestones),
            num_updates=epochs,
        ),
        warmup_factor=warmup_factor,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
    )


def cyclic_schedule(cycles, end_factor=0.01):
    """Factors from 1 to ``end_factor`` in each of the cycles, for weight averaging alone."""
    return L(CyclicCosineParamScheduler)(start_value=1.0, end_value=end_factor, num_cycles=cycles)


def step_then_cyclic_schedule(milestones, epochs, cycles, max_iter, warmup_iters=500):
    """:func:`step_schedule` for ``epochs``, then ``cycles`` cycles of one epoch each.

    It goes with ``train.swa.start = epochs / (epochs + cycles)`` and ``train.swa.cycles``.
    """
    total = epochs + cycles
    steps = step_schedule(milestones, epochs, max_iter, warmup_iters)
    steps.scheduler = L(CompositeParamScheduler)(
        schedulers=[steps.scheduler, cyclic_schedule(cycles)],
        lengths=[epochs / total, cycles / total],
        interval_scaling=["rescaled", "rescaled"],
    )
    return steps


max_iter_1x = 12 * ITERATIONS_PER_EPOCH
lr_multiplier_1x = step_schedule([8, 11], 12, max_iter_1x)

max_iter_2x = 24 * ITERATIONS_PER_EPOCH
lr_multiplier_2x = step_schedule([16, 22], 24, max_iter_2x)
