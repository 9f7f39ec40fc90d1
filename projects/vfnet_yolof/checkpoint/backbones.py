"""ImageNet backbones of other projects for the detectors here.

Read are torchvision's ResNets, ResNeXts and VGG16, open-mmlab's (Res2Net and Caffe's VGG16, too),
the MSRA and Facebook ResNets of Caffe2, Detectron2's ``.pkl`` files and the CSPDarkNet of YOLOF's
authors. As for whole detectors, every source tensor is accounted for, and every tensor of the
backbone gets a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import mmdet, yolof
from .backbone_tables import (
    CAFFE2_RULES,
    CLASSIFIER_RULES,
    DETECTRON2_RULES,
    RES2NET_STEM_RULES,
    TORCHVISION_VGG_RULES,
)
from .convert import save_converted
from .describe import describe
from .fitting import ModelOrKeys, Shapes, fit_to_target, target_shapes
from .loading import load_checkpoint
from .rules import CheckpointError, ConversionReport, Layout, apply_rules, errors_name, shorten_list
from .tensors import find_weights, locate_weights

# Where detectors here have the backbone proper, below the neck.
BACKBONE_PATH = "backbone.bottom_up."
# A frozen norm whose statistics were folded into its factors before the file was written.
FOLDED_EPS = 1e-5

_CAFFE2 = "Caffe2 ResNet"
_CAFFE_VGG = "open-mmlab VGG16 (Caffe)"
_VGG = "torchvision VGG16"
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        project="Res2Net",
        detector="",
        signature=(r"backbone\.layer1\.0\.convs\.0\.weight",),
        rules=mmdet.RES2NET_RULES + RES2NET_STEM_RULES + CLASSIFIER_RULES,
    ),
    Layout(
        project="YOLOF authors' CSPDarkNet",
        detector="",
        signature=(r"backbone\.layer1\.base_layer\.0\.weight",),
        rules=yolof.CSPDARKNET_RULES + CLASSIFIER_RULES,
    ),
    Layout(
        project="torchvision ResNet",
        detector="",
        signature=(r"backbone\.layer1\.0\.conv1\.weight",),
        rules=mmdet.RESNET_RULES + CLASSIFIER_RULES,
    ),
    Layout(
        project=_CAFFE_VGG,
        detector="",
        signature=(r"backbone\.features\.33\.weight",),
        rules=mmdet.VGG_RULES,
    ),
    Layout(
        project=_VGG,
        detector="",
        signature=(r"backbone\.features\.28\.weight", r"backbone\.classifier\.3\.weight"),
        rules=TORCHVISION_VGG_RULES,
    ),
    Layout(
        project=_CAFFE2,
        detector="",
        signature=(r"backbone\.res2_0_branch2a_w",),
        rules=CAFFE2_RULES,
    ),
    Layout(
        project="Detectron2 backbone",
        detector="",
        signature=(r"backbone\.(?:bottom_up\.)?stem\.conv1?\..*",),
        rules=DETECTRON2_RULES + CLASSIFIER_RULES,
    ),
)


def recognise_backbone(keys: Iterable[str]) -> Layout | None:
    """The layout of a file that holds a backbone and, at most, its classifier; None for others."""
    keys = [_with_prefix(key) for key in keys]
    others = [k for k in keys if not k.startswith("backbone.") and not _is_classifier(k)]
    # Beside its bottom_up, a detector's "backbone" here has a neck.
    necks = [k for k in keys if re.match(r"backbone\.(fpn|top_block|lateral|blocks|pan_)", k)]
    if others or necks:
        return None
    return next((layout for layout in LAYOUTS if layout.matches(keys)), None)


def is_backbone(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a loaded checkpoint is an ImageNet backbone, of a layout known here."""
    try:
        return recognise_backbone(locate_weights(checkpoint).tensors) is not None
    except CheckpointError:
        return False


def convert_backbone_state_dict(
    checkpoint: Mapping[str, Any], model_or_keys: ModelOrKeys
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Rename the tensors of an ImageNet backbone to those of a detector's ``backbone.bottom_up``.

    The result has all names and shapes of the detector's backbone and no others: the offsets of
    deformable convolutions, which no ImageNet file has, are 0; norms whose statistics the file has
    folded into their factors get those of the identity. Neck and head are not part of it.

    Raises:
        CheckpointError: the layout is unknown, or a source tensor is.
        CheckpointMismatchError: the detector has another backbone.
    """
    source = find_weights(checkpoint).tensors
    layout = recognise_backbone(source)
    if layout is None:
        raise CheckpointError(
            f"not an ImageNet backbone (known: {', '.join(x.name.strip() for x in LAYOUTS)}); the "
            f"first of its {len(source)} tensors are {shorten_list(list(source))}"
        )
    shapes = target_shapes(model_or_keys)
    target = {key: shape for key, shape in shapes.items() if key.startswith(BACKBONE_PATH)}
    if not target:
        raise CheckpointError(f"the model has no {BACKBONE_PATH[:-1]} to fill")
    prefixed = {_with_prefix(key): key for key in source}
    renamed, found = apply_rules({p: source[key] for p, key in prefixed.items()}, layout.rules)
    report = ConversionReport(
        renamed={prefixed[key]: name for key, name in found.renamed.items()},
        dropped={prefixed[key]: reason for key, reason in found.dropped.items()},
        unmatched=[prefixed[key] for key in found.unmatched],
        layout=layout.name.strip(),
        description=str(describe({k: tuple(v.shape) for k, v in renamed.items()})),
    )
    if report.unmatched:
        raise CheckpointError(
            f"{len(report.unmatched)} of {report.num_source} tensors of this {report.layout} are "
            f"not known: {shorten_list(report.unmatched)}"
        )
    for key, value in checkpoint.items():
        if not torch.is_tensor(value) and not isinstance(value, Mapping):
            report.dropped[str(key)] = "not a tensor"
    if layout.project == _VGG:
        _thin_out_classifier(renamed, report)
    _unfold_statistics(renamed, target, report)
    _add_offsets(renamed, target, report)
    fit_to_target(renamed, target, report)
    return renamed, report


def convert_backbone(
    path: str | os.PathLike[str], output: str | os.PathLike[str], model: nn.Module
) -> tuple[dict[str, Any], ConversionReport]:
    """Convert the backbone file ``path`` for ``model`` and write ``output`` atomically.

    The output holds what :func:`convert_backbone_state_dict` gives and is meant for
    ``train.init_checkpoint``: the neck and the head start afresh.

    Returns:
        What was written, and the report.

    Raises:
        CheckpointError: as of that function, naming the file; nothing is written then.
    """
    path = Path(path)
    checkpoint = load_checkpoint(path)
    with errors_name(path):
        converted, report = convert_backbone_state_dict(checkpoint, model)
    return save_converted(converted, report, path, output), report


def describe_pixels(report: ConversionReport, image_format: str | None) -> str:
    """A warning where the weights were trained on images in another order of channels, or ""."""
    if report.layout == _CAFFE2 and image_format == "RGB":
        return (
            "Caffe2's weights expect BGR images, but the model is given RGB: set "
            "model.input_format, pixel_mean and pixel_std to what they were trained with"
        )
    if report.layout == _VGG:
        return (
            "torchvision's VGG16 was trained with images divided by their std, SSD's recipe is for "
            "Caffe's, which were not: set model.pixel_std=[58.395,57.12,57.375]"
        )
    return ""


def _with_prefix(key: str) -> str:
    """Tables are written for names that begin with ``backbone.``, as in detectors."""
    known = key.startswith("backbone.") or _is_classifier(key) or key.split(".")[0] in _DETECTOR
    return key if known else f"backbone.{key}"


_DETECTOR = ("head", "neck", "bbox_head", "encoder", "decoder", "proposal_generator", "roi_heads")


def _is_classifier(key: str) -> bool:
    return any(re.fullmatch(rule.pattern, key) for rule in CLASSIFIER_RULES)


def _thin_out_classifier(converted: dict[str, torch.Tensor], report: ConversionReport) -> None:
    """VGG16's fully connected layers as the convolutions fc6 and fc7 (SSD, section 3).

    Of their 4096 outputs every fourth is taken, and of the 7 x 7 places that fc6 sees every third,
    which is why it is dilated.
    """
    reason = "every fourth output of the classifier's layer, and every third place that it sees"
    for name, place in (("fc6", 7), ("fc7", 1)):
        key = f"{BACKBONE_PATH}{name}."
        weight = converted[f"{key}weight"]
        if weight.ndim != 2 or len(weight) != 4096 or weight.shape[1] % place**2:
            raise CheckpointError(
                f"{name} of this {report.layout} should be (4096, n) numbers, it is "
                f"{tuple(weight.shape)}"
            )
        maps = weight.reshape(len(weight), -1, place, place)[::4, :, ::3, ::3]
        converted[f"{key}weight"] = maps if place > 1 else maps[:, ::4]
        converted[f"{key}bias"] = converted[f"{key}bias"][::4]
        report.added[f"{key}weight"] = report.added[f"{key}bias"] = reason


def _unfold_statistics(
    converted: dict[str, torch.Tensor],
    target: Shapes,
    report: ConversionReport,
) -> None:
    """Mean 0 and variance 1 - eps, which leave only factor and offset, as Detectron2 has it."""
    values = {"running_mean": 0.0, "running_var": 1.0 - FOLDED_EPS}
    for key in target:
        layer, _, name = key.rpartition(".")
        if name in values and key not in converted and f"{layer}.weight" in converted:
            converted[key] = torch.full_like(converted[f"{layer}.weight"], values[name])
            report.added[key] = "statistics that the source has folded into the norms' factors"


def _add_offsets(
    converted: dict[str, torch.Tensor],
    target: Shapes,
    report: ConversionReport,
) -> None:
    for key, shape in target.items():
        if ".conv_offset." in key and key not in converted and shape is not None:
            converted[key] = torch.zeros(shape)
            report.added[key] = "offsets of deformable convolutions: 0"
