"""SSD512, VGG16, 24 epochs of COCO five times over, as MMDetection trains it.

Published AP on val2017 (MMDetection's model zoo), not measured here: 29.5.
64 images a batch, 120 passes over the images, steps at 80 and 110, 500 iterations of warm-up from
0.001; weight decay 5e-4.

    python tools/train_net.py --config-file ssd/ssd512_vgg16.py --num-gpus 8 \\
        train.init_checkpoint=vgg16_caffe.pth
"""

from ..common.data.coco_ssd import dataloader
from ..common.models.ssd512 import model
from ..common.optim_mmdet import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 120 * 117266 // 64

optimizer.lr = 2e-3
optimizer.weight_decay = 5e-4
train.max_iter = _max_iter
train.reference_batch_size = 64
lr_multiplier = _step_schedule([16, 22], 24, _max_iter, warmup_factor=0.001)
