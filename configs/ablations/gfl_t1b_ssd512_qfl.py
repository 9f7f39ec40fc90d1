"""GFL table 1b, "SSD512 + joint w/ QFL": classes learn the quality of boxes with QFL.

Published AP on val2017, not measured here: 30.2.
Our reading: neither the paper nor any code says how SSD's softmax over 81 classes with mined
negatives and QFL go together. Here each anchor has 80 sigmoids, all negatives count (none are
mined), and the scores start at 0.01.

    python tools/train_net.py --config-file ablations/gfl_t1b_ssd512_qfl.py --num-gpus 8 \\
        train.init_checkpoint=vgg16_caffe.pth
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import QualityFocalLoss

from .gfl_t1b_ssd512 import dataloader, lr_multiplier, model, optimizer, train

model.head.background = False
model.head.prior_prob = 0.01
model.cls_loss = L(QualityFocalLoss)(beta=2.0)
