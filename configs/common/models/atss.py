"""FCOS+ATSS with ResNet-50 and FPN: the baseline of VFNet's tables 1 and 3.

It is GFL with one number for each side and a centerness branch. Distances are exp(x) strides, as in
FCOS; the divisors of the losses are those of VFNet's authors.
"""

from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget

from .gfl import model
from .gfl_parts import dirac_delta as _dirac_delta
from .gfl_parts import quality_branch as _quality_branch
from .vfnet import model as _vfnet

_dirac_delta(model)
_quality_branch(model, _CenternessTarget)
model.backbone = _vfnet.backbone
model.min_quality_sum = 1e-12
