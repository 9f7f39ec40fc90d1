"""YOLOF on CSPDarkNet-53 with a dilated last stage (YOLOF, section 5.1, comparison with YOLOv4).

Where paper and codes differ: predictions that overlap any box by more than ``assigner.max_iou`` are
no negatives, 0.75 in the paper's first phase and 0.7 in both codes, which the published models come
from and which is taken here. Four anchors and four predictions match each box in the Detectron2
code, whose files leave that at its default; eight in the cvpods code, as in the other DC5 models
and here. The weights up to the second stage are fixed, as in both codes; so are the statistics of
their norms here.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.backbones import CSPDarkNet

from .yolof import model

model.backbone.bottom_up = L(CSPDarkNet)(
    depth=53,
    norm="SyncBN",
    activation="Mish",
    freeze_at=2,
    res5_dilation=2,
    out_features=["res5"],
)
model.backbone.dilations = [1, 2, 3, 4, 5, 6, 7, 8]
model.backbone.norm = model.head.norm = "SyncBN"
model.backbone.activation = model.head.activation = "LeakyReLU"
model.head.num_anchors = 6
model.anchor_generator.sizes = [[16, 32, 64, 128, 256, 512]]
model.anchor_generator.strides = [16]
model.assigner.topk = 8
model.assigner.min_iou = 0.1
