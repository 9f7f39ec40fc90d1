"""The encoders that YOLOF's paper compares (figures 1 and 8, appendix A).

Encoders with multiple or a single feature in, and multiple or a single feature out. MiMo is
Detectron2's ``FPN`` with P6 and P7; SiSo is the same ``FPN`` on C5 alone, without them. The other
two are here.
"""

from collections.abc import Sequence

from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import FPN, Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn
from torch.nn import functional as F

from .pafpn import PAFPN


class SiMoEncoder(FPN):
    """All levels of a feature pyramid from the backbone's last feature alone.

    An FPN whose lateral convolutions on the finer features are gone: the projected feature is
    enlarged step by step, and each level has its 3x3 convolution on it. The paper's figure
    shows no more, so there is nothing between two steps, and as in the FPN they
    repeat each cell. Parameters have the names of Detectron2's ``FPN``.

    Args:
        bottom_up: the backbone below.
        in_feature: which of its features to use.
        out_channels: channels of every level.
        num_finer: levels finer than the feature; 2 adds P3 and P4 to C5's P5.
        norm: after every convolution (anything Detectron2's ``get_norm`` takes); without one they
            have biases.
        top_block: makes the coarser levels, as in Detectron2's ``FPN``.
    """

    _out_features: list[str]

    def __init__(
        self,
        bottom_up: Backbone,
        *,
        in_feature: str = "res5",
        out_channels: int = 256,
        num_finer: int = 2,
        norm: str = "",
        top_block: nn.Module | None = None,
    ) -> None:
        super().__init__(bottom_up, [in_feature], out_channels, norm, top_block)
        stride = bottom_up.output_shape()[in_feature].stride
        if num_finer < 0 or stride % 2**num_finer:
            raise ValueError(f"num_finer={num_finer} does not fit {in_feature}'s stride {stride}")
        stage = stride.bit_length() - 1
        finer = [f"p{stage - i}" for i in range(1, num_finer + 1)]
        self.finer_outputs = [f"fpn_output{name[1:]}" for name in finer]
        for i, (name, module) in enumerate(zip(finer, self.finer_outputs, strict=True), start=1):
            conv = Conv2d(
                out_channels,
                out_channels,
                3,
                padding=1,
                bias=not norm,
                norm=get_norm(norm, out_channels),
            )
            c2_xavier_fill(conv)
            self.add_module(module, conv)
            self._out_feature_strides[name] = stride >> i
            self._out_feature_channels[name] = out_channels
        self._out_features = [*reversed(finer), *self._out_features]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) images -> levels by name, finest first."""
        features = self.bottom_up(x)
        merged = self.lateral_convs[0](features[self.in_features[0]])
        outputs = [self.output_convs[0](merged)]
        for module in self.finer_outputs:
            merged = F.interpolate(merged, scale_factor=2.0, mode="nearest")
            outputs.insert(0, self.get_submodule(module)(merged))
        levels = dict(zip(self._out_features, outputs, strict=False))
        if self.top_block is not None:
            source = self.top_block.in_feature
            coarser = self.top_block(features[source] if source in features else levels[source])
            levels.update(zip(self._out_features[len(outputs) :], coarser, strict=True))
        return levels


class MiSoEncoder(PAFPN):
    """One level that several features of the backbone go into, in the manner of PANet.

    The two paths of :class:`PAFPN`, of which the coarsest level alone leaves and has a 3x3
    convolution of its own at the end. The paper says "similar to PANet" and no more; as in
    :class:`PAFPN` the second path has no activations.

    Args:
        bottom_up, in_features, out_channels, norm: as of :class:`PAFPN`.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str] = ("res3", "res4", "res5"),
        out_channels: int = 256,
        norm: str = "",
    ) -> None:
        super().__init__(bottom_up, in_features, out_channels, norm)
        self.out_feature = self._out_features[-1]

    def _path_outputs(self, names: Sequence[str], channels: int, norm: str) -> nn.ModuleDict:
        # Those of the levels that do not leave would never learn.
        return super()._path_outputs(names[-2:], channels, norm)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) images -> the only level by name."""
        return {self.out_feature: super().forward(x)[self.out_feature]}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the only level."""
        return {self.out_feature: super().output_shape()[self.out_feature]}
