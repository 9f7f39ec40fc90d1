"""A small VFNet on the embedded shapes, for a CPU: what ``make demo`` trains.

python tools/train_net.py --config-file vfnet/vfnet_small_shapes.py
"""

from ..common.models.vfnet_small import model
from ..common.shapes_run import dataloader, lr_multiplier, optimizer, train

model.num_classes = 6
