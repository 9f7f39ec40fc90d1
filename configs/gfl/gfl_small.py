"""A small GFL from scratch on data of your own, for a CPU or a first try.

    python tools/train_net.py --config-file gfl/gfl_small.py \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/
"""

from ..common.data.small import dataloader
from ..common.models.gfl_small import model
from ..common.small_run import lr_multiplier, optimizer, train
