"""Detectron2's own FCOS in the place of the small VFNet: same backbone, data and schedule.

    python tools/train_net.py --config-file baselines/fcos_small.py \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/
"""

from ..common.models.fcos_small import model
from ..vfnet.vfnet_small import dataloader, lr_multiplier, optimizer, train

train.output_dir = "./output/fcos_small"
