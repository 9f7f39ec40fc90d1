"""AdamW for small networks that start from scratch: they learn sooner than with SGD."""

import torch
from detectron2.config import LazyCall as L
from vfnet_yolof.solver import get_optimizer_params

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
