"""MMDetection beside this project: the same weights and images, measured in one process.

Needs ``pip install mmdet==3.3.0 mmengine==0.10.7 mmcv-lite==2.2.0`` (and what they import). What
mmcv's compiled operators do in these detectors, torchvision's do here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision import ops
from vfnet_yolof.checkpoint.convert import convert_state_dict

CONFIGS = {
    "VFNet": "vfnet/vfnet_r50_fpn_1x_coco.py",
    "GFL": "gfl/gfl_r50_fpn_1x_coco.py",
}
SUBMODULES = (
    "carafe",
    "merge_cells",
    "modulated_deform_conv",
    "multi_scale_deform_attn",
    "nms",
    "roi_align",
)
NEWEST_MMCV = "2.1.0"  # mmdet 3.3.0 refuses newer ones, with which it runs


class PeerMissing(RuntimeError):
    """The peer is not installed, or has no such detector."""


class DeformConv2d(nn.Module):
    """mmcv's deformable convolution on torchvision's operator, which equals its CPU kernel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if bias:
            raise ValueError("mmcv's deformable convolution has no bias")
        self.geometry = dict(stride=stride, padding=padding, dilation=dilation)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size)
        )

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return ops.deform_conv2d(x, offset, self.weight, **self.geometry)


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor,
    nms_cfg: dict[str, Any],
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor]:
    """mmcv's ``batched_nms`` for greedy suppression: (P, 5) boxes with scores, and indices."""
    threshold = nms_cfg["iou_threshold"]
    classes = torch.zeros_like(idxs) if class_agnostic else idxs
    keep = ops.batched_nms(boxes, scores, classes, threshold)
    return torch.cat([boxes[keep], scores[keep, None]], dim=1), keep


class _Operators(ModuleType):
    """``mmcv.ops`` and its submodules; what these detectors never call is an empty class."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


def import_mmdet() -> ModuleType:
    """MMDetection, with operators from torchvision where mmcv has none compiled.

    Raises:
        PeerMissing: it is not installed.
    """
    for name in ("mmdet", "mmcv", "mmengine"):
        if importlib.util.find_spec(name) is None:
            raise PeerMissing(f"{name} is not installed")
    import mmcv

    if importlib.util.find_spec("mmcv._ext") is None:
        for name in ("mmcv.ops", *(f"mmcv.ops.{part}" for part in SUBMODULES)):
            module = _Operators(name)
            module.batched_nms, module.DeformConv2d = batched_nms, DeformConv2d
            sys.modules[name] = module
        mmcv.ops = sys.modules["mmcv.ops"]
    version, mmcv.__version__ = mmcv.__version__, NEWEST_MMCV
    try:
        import mmdet
    finally:
        mmcv.__version__ = version
    from mmengine.registry import MODELS

    if MODELS.get("DCN") is None:
        MODELS.register_module("DCN", module=DeformConv2d)
    return mmdet


def build_peer(model: nn.Module) -> nn.Module:
    """MMDetection's detector with the weights and the score threshold of ours.

    Raises:
        PeerMissing: MMDetection is missing or has no counterpart.
    """
    name = type(model).__name__
    if name not in CONFIGS:
        raise PeerMissing(f"there is no MMDetection counterpart of {name}")
    mmdet = import_mmdet()
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    config = Config.fromfile(str(folder / CONFIGS[name])).model
    config.backbone.init_cfg = None
    config.test_cfg.score_thr = model.postprocessor.score_thresh
    peer = MODELS.build(config).eval()
    theirs = peer.state_dict()
    _, report = convert_state_dict(theirs, model)
    ours = model.state_dict()
    with torch.no_grad():
        for source, target in report.renamed.items():
            theirs[source].copy_(ours[target])
    return peer


def peer_run(
    peer: nn.Module, inputs: list[dict[str, Any]], *, swap_channels: bool
) -> Callable[[], list[Instances]]:
    """A function that detects in Detectron2's ``inputs`` with MMDetection's model.

    swap_channels: the inputs are in R, G, B; MMDetection wants B, G, R.
    """
    from mmdet.structures import DetDataSample

    images = [x["image"].flip(0) if swap_channels else x["image"] for x in inputs]

    def run() -> list[Instances]:
        samples = []
        for image in images:
            size = tuple(image.shape[-2:])
            sample = DetDataSample()
            sample.set_metainfo(dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
            samples.append(sample)
        found = peer.test_step({"inputs": list(images), "data_samples": samples})
        return [_instances(x) for x in found]

    return run


def _instances(sample: Any) -> Instances:
    found = sample.pred_instances
    return Instances(
        tuple(sample.ori_shape),
        pred_boxes=Boxes(found.bboxes),
        scores=found.scores,
        pred_classes=found.labels,
    )
