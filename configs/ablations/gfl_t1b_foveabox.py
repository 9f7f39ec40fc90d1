"""GFL table 1b, "FoveaBox": the baseline.

Published AP on val2017, not measured here: 36.4. Schedule: 1x.
The table was made on MMDetection 1.x, where boxes were wider by a pixel, which is not repeated.

    python tools/train_net.py --config-file ablations/gfl_t1b_foveabox.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..foveabox.foveabox_r50_fpn_1x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)
