"""YOLOF's encoder: many receptive fields on one level (YOLOF, section 4.1 and figure 5)."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from ...layers.conv import make_activation
from ..backbones.darknet import cspdarknet_from_keys
from ..backbones.resnet import resnet_from_keys


class DilatedBlock(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution, each with norm and activation, and a shortcut.

    Unlike a ResNet's block it has no activation after the sum.

    Args:
        channels, mid_channels: of the outer features and of the 3x3 convolution.
        dilation: of the 3x3 convolution.
        norm: anything that Detectron2's ``get_norm`` takes. Convolutions keep their biases.
        activation: see :func:`vfnet_yolof.layers.conv.make_activation`.
        shortcut: add the input to the output.
    """

    def __init__(
        self,
        channels: int,
        mid_channels: int,
        *,
        dilation: int,
        norm: str = "BN",
        activation: str = "ReLU",
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(
            channels,
            mid_channels,
            kernel_size=1,
            norm=get_norm(norm, mid_channels),
            activation=make_activation(activation),
        )
        self.conv2 = Conv2d(
            mid_channels,
            mid_channels,
            kernel_size=3,
            padding=dilation,
            dilation=dilation,
            norm=get_norm(norm, mid_channels),
            activation=make_activation(activation),
        )
        self.conv3 = Conv2d(
            mid_channels,
            channels,
            kernel_size=1,
            norm=get_norm(norm, channels),
            activation=make_activation(activation),
        )
        self.shortcut = shortcut
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(self.conv2(self.conv1(x)))
        return out + x if self.shortcut else out


class DilatedEncoder(Backbone):
    """One feature of ``bottom_up``, projected and seen at several dilations.

    The projector is a 1x1 and a 3x3 convolution with norms and no activations; the blocks follow
    one another. The output has the stride of the input feature and the name ``"encoded"``.

    Args:
        bottom_up: the backbone proper.
        in_feature: which of its features to encode.
        channels, mid_channels: of the features and inside the blocks (512 and 128 in the paper).
        dilations: of the blocks, one for each of them; none leaves the projector alone.
        norm, activation, shortcut: see :class:`DilatedBlock`.
        size_divisibility: pad images to a multiple of so many px; by default as ``bottom_up`` has
            it, which for a ResNet is not at all, as in the authors' code.
    """

    OUT_FEATURE = "encoded"

    def __init__(
        self,
        bottom_up: Backbone,
        *,
        in_feature: str = "res5",
        channels: int = 512,
        mid_channels: int = 128,
        dilations: Sequence[int] = (2, 4, 6, 8),
        norm: str = "BN",
        activation: str = "ReLU",
        shortcut: bool = True,
        size_divisibility: int | None = None,
    ) -> None:
        super().__init__()
        if size_divisibility is not None and size_divisibility < 0:
            raise ValueError(f"size_divisibility must not be negative, got {size_divisibility}")
        shapes = bottom_up.output_shape()
        if in_feature not in shapes:
            raise ValueError(f"in_feature must be one of {sorted(shapes)}, got {in_feature!r}")
        self.bottom_up = bottom_up
        self.in_feature = in_feature
        self._size_divisibility = size_divisibility
        in_channels = shapes[in_feature].channels
        self.lateral = Conv2d(in_channels, channels, kernel_size=1, norm=get_norm(norm, channels))
        self.output = Conv2d(
            channels, channels, kernel_size=3, padding=1, norm=get_norm(norm, channels)
        )
        for conv in (self.lateral, self.output):
            c2_xavier_fill(conv)
        self.blocks = nn.Sequential(
            *(
                DilatedBlock(
                    channels,
                    mid_channels,
                    dilation=dilation,
                    norm=norm,
                    activation=activation,
                    shortcut=shortcut,
                )
                for dilation in dilations
            )
        )
        self._out_shape = ShapeSpec(channels=channels, stride=shapes[in_feature].stride)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> one feature (N, ``channels``, H / stride, W / stride)."""
        feature = self.bottom_up(x)[self.in_feature]
        return {self.OUT_FEATURE: self.blocks(self.output(self.lateral(feature)))}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the only feature."""
        return {self.OUT_FEATURE: self._out_shape}

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of it, px; 0: not at all."""
        if self._size_divisibility is not None:
            return self._size_divisibility
        return self.bottom_up.size_divisibility


def encoder_from_keys(cfg: CfgNode, bottom_up: Backbone) -> DilatedEncoder:
    """The encoder of ``MODEL.YOLOF.ENCODER`` around a backbone."""
    keys = cfg.MODEL.YOLOF.ENCODER
    return DilatedEncoder(
        bottom_up,
        in_feature=keys.IN_FEATURE,
        channels=keys.CHANNELS,
        mid_channels=keys.MID_CHANNELS,
        dilations=keys.DILATIONS,
        norm=keys.NORM,
        activation=keys.ACTIVATION,
        shortcut=keys.SHORTCUT,
    )


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_resnet_dilated_backbone(
    cfg: CfgNode, input_shape: ShapeSpec
) -> DilatedEncoder:
    """ResNet and dilated encoder from yacs keys."""
    return encoder_from_keys(cfg, resnet_from_keys(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_cspdarknet_dilated_backbone(
    cfg: CfgNode, input_shape: ShapeSpec
) -> DilatedEncoder:
    """CSPDarkNet and dilated encoder from yacs keys."""
    return encoder_from_keys(cfg, cspdarknet_from_keys(cfg, input_shape))
