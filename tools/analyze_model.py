#!/usr/bin/env python
"""Parameters and multiply-adds of the detectors of config files, by part.

    python tools/analyze_model.py vfnet/vfnet_r50_fpn_1x.py gfl/gfl_r50_fpn_1x.py --json cost.json
    python tools/analyze_model.py vfnet/vfnet_r50_fpn_1x.py --size 608 608 --set model.num_classes=3

G are 10^9 multiply-adds of convolutions (deformable ones and their offsets' among them) and matrix
products for one image. The affine part of frozen batch norms is not among the parameters.
"""

from vfnet_yolof.cli.main import console
from vfnet_yolof.cli.reports import analyze_tool

if __name__ == "__main__":
    console(lambda: analyze_tool(__doc__))
