"""GFL, ResNet-101, multi-scale 2x, the authors' first release.

Published AP, not measured here: 44.9 on val2017, 45.0 on test-dev.
For that release's weights, whose boxes count whole pixels. For any other use:
gfl_r101_fpn_ms_2x.py.

    python tools/convert_checkpoint.py --config-file gfl/gfocal_r101_fpn_ms_2x.py \\
        gfocal_r101_fpn_ms_2x.pth gfl_converted.pth
"""

from ..common.models.gfl_parts import first_release as _first_release
from .gfl_r101_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_first_release(model)
