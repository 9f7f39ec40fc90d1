"""GFL table 1b, "SSD512": the baseline.

Published AP on val2017, not measured here: 29.4.
The table was made on MMDetection 1.x, where boxes were wider by a pixel and anchors lay half a
pixel to the upper left, which is not repeated here.

    python tools/train_net.py --config-file ablations/gfl_t1b_ssd512.py --num-gpus 8 \\
        train.init_checkpoint=vgg16_caffe.pth
"""

from ..ssd.ssd512_vgg16 import dataloader, lr_multiplier, model, optimizer, train
