"""A small GFL on the embedded shapes, for a CPU.

python tools/train_net.py --config-file gfl/gfl_small_shapes.py
"""

from ..common.models.gfl_small import model
from ..common.shapes_run import dataloader, lr_multiplier, optimizer, train

model.num_classes = 6
