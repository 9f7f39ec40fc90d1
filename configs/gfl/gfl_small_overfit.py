"""Overfit a few dozen images with GFL; see ``vfnet/vfnet_small_overfit.py``.

    python tools/train_net.py --config-file gfl/gfl_small_overfit.py \\
        --train-json train.json --train-images train/ --val-json train.json --val-images train/
"""

from ..common.models.gfl_small import model
from ..vfnet.vfnet_small_overfit import dataloader, lr_multiplier, optimizer, train
