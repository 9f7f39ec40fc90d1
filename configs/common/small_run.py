"""A short run of a small network that starts from scratch, for a CPU.

AdamW, since such networks learn sooner with it than with SGD.
"""

import torch
from detectron2.config import LazyCall as L
from vfnet_yolof.solver import get_optimizer_params

from .schedule import step_schedule
from .train import train


def last_for(train, max_iter):
    """Set the iterations of ``train`` and evaluate three times; returns the ``lr_multiplier``."""
    train.max_iter = max_iter
    train.eval_period = max_iter // 3
    train.checkpointer.period = max_iter // 3
    return step_schedule([70, 90], 100, max_iter, warmup_iters=100)


optimizer = L(torch.optim.AdamW)(
    params=L(get_optimizer_params)(
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        bias_lr_factor=1.0,
        weight_decay_bias=0.0,
    ),
    lr=0.001,
    weight_decay=0.01,
)
train.reference_batch_size = 4
train.clip_grad.enabled = True
lr_multiplier = last_for(train, 1500)
