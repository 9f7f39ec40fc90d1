"""SGD as the VFNet and GFL references use it: bias lr x2 without decay."""

import torch
from detectron2.config import LazyCall as L
from vfnet_yolof.solver import get_optimizer_params

optimizer = L(torch.optim.SGD)(
    params=L(get_optimizer_params)(
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        bias_lr_factor=2.0,
        weight_decay_bias=0.0,
    ),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)
