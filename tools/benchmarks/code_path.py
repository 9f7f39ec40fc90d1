"""How many files a training forward runs through, and how often it changes from one to another.

    python tools/benchmarks/code_path.py vfnet/vfnet_r50_fpn_1x.py gfl/gfl_r50_fpn_1x.py
    python tools/benchmarks/code_path.py --fcos

Files of ``modeling`` without its backbones count, for a batch of one image: those with a function
that was called, and a change is a call or a return after which the current one of these files is
another. Other code in between is passed over.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import detectron2
import torch
import vfnet_yolof
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from vfnet_yolof.config.packaged import find_config


class CodePath:
    """Files of a folder in the order in which a profiled call enters them.

    Args:
        root: folder ``modeling`` of a package.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.files: Counter[str] = Counter()
        self.changes = 0
        self._stack: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """What ``sys.setprofile`` calls."""
        name = frame.f_code.co_filename
        if event not in ("call", "return") or not name.startswith(self.root):
            return
        if name.startswith((f"{self.root}/backbone", f"{self.root}/necks")):
            return
        if event == "call":
            self.files[name.removeprefix(self.root).lstrip("/")] += 1
            self.changes += bool(self._stack) and self._stack[-1] != name
            self._stack.append(name)
        elif self._stack:
            self._stack.pop()
            self.changes += bool(self._stack) and self._stack[-1] != name


def inputs() -> list[dict[str, Any]]:
    """One image of 96 x 128 pixels with two boxes."""
    instances = Instances((96, 128))
    boxes = [[8.0, 8.0, 60.0, 70.0], [40.0, 30.0, 110.0, 90.0]]
    instances.gt_boxes = Boxes(torch.tensor(boxes))
    instances.gt_classes = torch.tensor([0, 1])
    return [{"image": torch.zeros(3, 96, 128), "instances": instances}]


def trace(model: nn.Module, root: Path) -> CodePath:
    """The path of one training forward, after one that is not counted."""
    model.train()
    batch = inputs()
    path = CodePath(root)
    with EventStorage():
        model(batch)
        sys.setprofile(path)
        try:
            model(batch)
        finally:
            sys.setprofile(None)
    return path


def build(name: str) -> nn.Module:
    """The detector of a configuration below ``configs/``."""
    return instantiate(LazyConfig.load(find_config(name)).model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*", help="configuration files")
    parser.add_argument("--fcos", action="store_true", help="Detectron2's own FCOS, in detectron2")
    args = parser.parse_args()
    own = Path(vfnet_yolof.__file__).parent / "modeling"
    paths = {name: trace(build(name), own) for name in args.configs}
    if args.fcos:
        from detectron2 import model_zoo

        fcos = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
        paths["detectron2 FCOS"] = trace(
            instantiate(fcos), Path(detectron2.__file__).parent / "modeling"
        )
    for name, path in paths.items():
        print(f"{name}: {len(path.files)} files, {path.changes} changes")
        for file, calls in path.files.items():
            print(f"  {calls:5d} {file}")


if __name__ == "__main__":
    main()
