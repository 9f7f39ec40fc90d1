"""YOLOF's schedules: whole multiples of 22,500 iterations of 64 images (section 5)."""

from .schedule import step_schedule


def train_for(times, train, dataloader, batch_size=64):
    """Set the length of a ``times``-fold schedule and the batch; returns the rate's factors.

    As with Detectron2's schedules the rate falls 7,500 and 2,500 iterations before the end of the
    1x one, and 15,000 and 5,000 before that of all longer ones. It rises in the first 1,500 from a
    1,500th. Another batch size changes all iterations, so that as many images are seen.
    """
    unit = 64 / batch_size
    tail = unit if times == 1 else 2 * unit
    max_iter = int(22500 * times * unit)
    warmup_iters = int(1500 * unit)
    train.max_iter = max_iter
    train.reference_batch_size = batch_size
    dataloader.train.total_batch_size = batch_size
    return step_schedule(
        [max_iter - int(7500 * tail), max_iter - int(2500 * tail)],
        max_iter,
        max_iter,
        warmup_iters,
        warmup_factor=1 / warmup_iters,
    )
