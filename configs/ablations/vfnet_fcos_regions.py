"""VFNet with the region rule of FCOS instead of ATSS (not a row of the paper).

Points lie on the centres of the cells, as in FCOS.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.assigners import FCOSAssigner

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.points.offset = 0.5
model.assigner = L(FCOSAssigner)(strides="${..points.strides}")
train.output_dir = "./output/ablations/vfnet_fcos_regions"
