"""Any model of the timm library as a Detectron2 backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn


class TimmBackbone(Backbone):
    """A timm model's feature maps, named by their strides.

    ``res1`` has stride 2, ``res2`` 4 and so on to ``res5`` with 32; where a model has several maps
    of one stride (all of a plain vision transformer's have 16), the last one counts. Strides and
    channels are those that timm announces. Needs ``pip install vfnet-yolof[timm]``.

    Args:
        name: as of ``timm.create_model``, e.g. ``"convnext_tiny"`` or ``"resnet50.a1_in1k"``.
        out_features: feature maps to return, finest first.
        pretrained: let timm fetch its weights for ``name``.
        norm_eval: batch norms use their running statistics in training, too; their affine parts
            learn nevertheless.
        frozen: submodules of timm's feature model, e.g. ``["conv1", "bn1", "layer1"]``, that do
            not learn and whose batch norms keep their statistics.
        options: further arguments of ``timm.create_model``, e.g. ``{"drop_path_rate": 0.1}`` or,
            for Swin, ``{"strict_img_size": False}``.

    Raises:
        ImportError: timm is not installed.
        ValueError: the model cannot return feature maps, or has no such feature or submodule.
    """

    def __init__(
        self,
        name: str,
        *,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        pretrained: bool = False,
        norm_eval: bool = True,
        frozen: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = dict(options or {})
        with torch.device("meta"):  # only to learn what there is
            known = _named_features(_create(name, **options))
        unknown = [feature for feature in out_features if feature not in known]
        if unknown or not out_features:
            raise ValueError(
                f"timm's {name!r} has the features {', '.join(known)}; out_features has "
                f"{', '.join(unknown) or 'none'}"
            )
        self._shapes = {feature: known[feature][1] for feature in out_features}
        self._out_features = list(out_features)
        # timm builds no layers behind the last of these, which would never get a gradient.
        indices = {feature: known[feature][0] for feature in out_features}
        if list(indices.values()) != sorted(set(indices.values())):
            raise ValueError(f"out_features must go from fine to coarse, got {self._out_features}")
        self.model = _create(
            name, pretrained=pretrained, out_indices=tuple(indices.values()), **options
        )
        self.norm_eval = norm_eval
        self._frozen = [self._submodule(path) for path in frozen]
        for module in self._frozen:
            module.requires_grad_(False)
        self._channels_last = str(getattr(self.model, "output_fmt", "NCHW")).endswith("NHWC")
        self.train(self.training)

    def _submodule(self, path: str) -> nn.Module:
        try:
            return self.model.get_submodule(path)
        except AttributeError as error:
            names = ", ".join(name for name, _ in self.model.named_children())
            raise ValueError(f"frozen: no submodule {path!r}; there are {names}") from error

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for module in [self.model] if self.norm_eval else self._frozen:
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> feature maps (N, C, H / stride, W / stride) by name."""
        maps = self.model(x)
        if self._channels_last:
            maps = [y.permute(0, 3, 1, 2).contiguous() for y in maps]
        return dict(zip(self._out_features, maps, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


def _create(name: str, **options: Any) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "TimmBackbone needs the timm library: pip install timm, or vfnet-yolof[timm]"
        ) from error
    try:
        return timm.create_model(name, features_only=True, **options)
    except (RuntimeError, AttributeError) as error:  # unknown name; no feature maps
        raise ValueError(f"timm cannot give feature maps of {name!r}: {error}") from error


def _named_features(model: Any) -> dict[str, tuple[int, ShapeSpec]]:
    """Name -> position among timm's feature maps, and shape; the last of each stride."""
    features = {}
    for index, info in enumerate(model.feature_info.info):
        stride = info["reduction"]
        level = math.log2(stride)
        if level.is_integer():
            shape = ShapeSpec(channels=info["num_chs"], stride=stride)
            features[f"res{int(level)}"] = (index, shape)
    return features
