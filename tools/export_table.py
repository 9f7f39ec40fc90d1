#!/usr/bin/env python
"""Whether exported files give what the detectors give: a table of detectors and formats.

    python tools/export_table.py
    python tools/export_table.py --formats onnx --models vfnet/vfnet_r50_fpn_1x.py

Random weights serve, since parity does not depend on them. Each file is written into a temporary
folder and checked as `vfnet-yolof export` does; seconds are of the processor, check included.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vfnet_yolof.export.check import Check

FORMATS = ("onnx", "openvino", "torch-export")
MODELS = (
    "vfnet/vfnet_r50_fpn_1x.py",
    "gfl/gfl_r50_fpn_1x.py",
    "yolof/yolof_r50_c5_1x.py",
    "vfnet/vfnet_small_shapes.py",
    "gfl/gfl_small_shapes.py",
    "yolof/yolof_small_shapes.py",
    "vfnet/vfnet_r50_dcn_fpn_ms_2x.py",
    "vfnet/vfnet_r2_101_dcn_fpn_ms_2x.py",
    "vfnet/vfnetx_r2_101_800.py",
    "gfl/gfl_r101_dcnv1_fpn_ms_2x.py",
    "yolof/yolof_r50_dc5_1x.py",
    "yolof/yolof_csp_d53_dc5_3x.py",
    "foveabox/foveabox_r50_fpn_1x.py",
)
HEADER = (
    "| detector | format | compared | boxes, px | of the side | scores | one side only | s | MB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print a line for each detector and format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="CONFIG")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    args = parser.parse_args()
    print(HEADER, flush=True)
    for model in args.models:
        for kind in args.formats:
            print(f"| `{Path(model).stem}` | {row(model, kind)} |", flush=True)


def row(config: str, kind: str) -> str:
    """The table's line of one file."""
    import torch
    from vfnet_yolof.config.inference import read_inference_config
    from vfnet_yolof.export.write import ExportOptions, export_detector
    from vfnet_yolof.layers.soft_nms import SoftNMS

    read = read_inference_config(config)
    torch.manual_seed(0)
    model = read.build_model()
    options = ExportOptions(kind, nms=not isinstance(model.postprocessor.nms, SoftNMS))
    names = [str(i) for i in range(model.num_classes)]
    with tempfile.TemporaryDirectory() as folder:
        start = _seconds()
        try:
            checks = export_detector(
                model, read, f"{folder}/model", options, class_names=names, trained=False
            )
        except ValueError as error:
            return f"{kind} | {error} | | | | | |"
        seconds = _seconds() - start
        size = sum(os.path.getsize(f"{folder}/{x}") for x in os.listdir(folder)) / 1e6
    kind += "" if options.nms else ", NMS outside"
    return f"{kind} | {_figures(checks)} | {seconds:.0f} | {size:.0f}"


def _figures(checks: list[Check]) -> str:
    compared, alone = sum(x.detections for x in checks), sum(x.unmatched for x in checks)
    error = max(x.box_error for x in checks)
    relative = max(x.box_error / max(x.size) for x in checks)
    score = max(x.score_error for x in checks)
    return f"{compared} | {error:.1e} | {relative:.1e} | {score:.1e} | {alone}"


def _seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
