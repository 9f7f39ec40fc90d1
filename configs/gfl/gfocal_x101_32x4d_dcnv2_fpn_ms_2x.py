"""GFL, ResNeXt-101-32x4d with DCNv2, multi-scale 2x, the authors' first release.

Published AP, not measured here: 48.3 on val2017, 48.2 on test-dev.
For that release's weights, whose boxes count whole pixels. For any other use:
gfl_x101_32x4d_dcnv2_fpn_ms_2x.py.

    python tools/convert_checkpoint.py --config-file gfl/gfocal_x101_32x4d_dcnv2_fpn_ms_2x.py \\
        gfocal_x101_32x4d_dcnv2_fpn_ms_2x.pth gfl_converted.pth
"""

from ..common.models.gfl_parts import first_release as _first_release
from .gfl_x101_32x4d_dcnv2_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_first_release(model)
