"""Detectron2's own FCOS in the place of the small VFNet: same backbone, data and schedule.

    python tools/train_net.py --config-file baselines/fcos_small.py \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/
"""

from ..common.data.small import dataloader
from ..common.models.fcos_small import model
from ..common.small_run import lr_multiplier, optimizer, train
