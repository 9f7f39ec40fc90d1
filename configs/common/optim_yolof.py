"""SGD as the YOLOF reference uses it: norms without decay, the backbone at a third of the rate.

Biases are treated as weights, unlike VFNet's and GFL's.
"""

import torch
from detectron2.config import LazyCall as L
from vfnet_yolof.solver import get_optimizer_params

optimizer = L(torch.optim.SGD)(
    params=L(get_optimizer_params)(
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        bias_lr_factor=1.0,
        weight_decay_bias=None,
        weight_decay_norm=0.0,
        lr_factors={"backbone.bottom_up": 0.334},
    ),
    lr=0.12,
    momentum=0.9,
    weight_decay=1e-4,
)
