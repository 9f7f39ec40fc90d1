"""GFL table 2a, ATSS, "Gaussian": mean and variance of each side.

Published AP on val2017, not measured here: 39.3. Schedule: 1x. As in all rows without QFL, a
centerness branch represents the quality. The paper does not say how its Gaussians learn;
docs/gfl.md says how these do.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget
from vfnet_yolof.modeling.representations import GaussianDistribution

from ..common.models.gfl_parts import quality_branch as _quality_branch
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.head.representation = L(GaussianDistribution)()
_quality_branch(model, _CenternessTarget)
