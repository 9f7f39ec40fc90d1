#!/usr/bin/env python
"""Convert a row's weights, evaluate them on COCO val2017, and compare with the published AP.

    python tools/verify_weights.py vfnet_r50_fpn_1x --coco datasets/coco
    python tools/verify_weights.py gfl_r101_fpn_ms_2x --coco datasets/coco --weights gfl_r101.pth

The exit status is 0 if the AP is within 0.3 of the published one, 1 if it is not, and 2 if that
could not be told. Weights are looked for as vfnet_yolof.model_zoo does.
"""

from vfnet_yolof.cli.main import console
from vfnet_yolof.cli.zoo import verify_tool

if __name__ == "__main__":
    console(lambda: verify_tool(__doc__))
