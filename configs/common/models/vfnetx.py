"""VFNet-X: Res2Net-101 with DCNv2, a wider neck and head, soft-NMS (VFNet, section 5.3)."""

from detectron2.config import LazyCall as L
from vfnet_yolof.layers.soft_nms import SoftNMS
from vfnet_yolof.modeling.backbones import LastLevelP6P7Norm
from vfnet_yolof.modeling.necks import PAFPNX

from .variants import deformable as _deformable
from .variants import res2net101 as _res2net101
from .vfnet import model

_res2net101(model)
_deformable(model, head=True)
model.backbone._target_ = PAFPNX
model.backbone.out_channels = 384
model.backbone.norm = "GN"
model.backbone.top_block._target_ = LastLevelP6P7Norm
model.head.num_convs = 4
model.head.conv_channels = 384
model.postprocessor.nms = L(SoftNMS)(method="linear", iou_threshold=0.65, min_score=1e-3)
model.postprocessor.candidates = "location"
