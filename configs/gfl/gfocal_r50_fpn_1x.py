"""GFL, ResNet-50, 1x, the authors' first release.

Published AP, not measured here: 40.2 on val2017, 40.3 on test-dev.
For that release's weights, whose boxes count whole pixels. For any other use:
gfl_r50_fpn_1x.py.

    python tools/convert_checkpoint.py --config-file gfl/gfocal_r50_fpn_1x.py \\
        gfocal_r50_fpn_1x.pth gfl_converted.pth
"""

from ..common.models.gfl_parts import first_release as _first_release
from .gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_first_release(model)
