"""VGG16 as SSD has it: the two large fully connected layers are convolutions (SSD, section 3)."""

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each
FEATURES = {
    "conv4_3": ShapeSpec(channels=512, stride=8),
    "fc7": ShapeSpec(channels=1024, stride=16),
}


class VGG16(Backbone):
    """Thirteen 3x3 convolutions with ReLUs in five stages, then fc6 and fc7.

    Stages end with pooling that halves the map and rounds up; the last one keeps its size. fc6 is a
    3x3 convolution with dilation 6. There are no norms. Parameters are ``conv1_1`` to ``conv5_3``,
    ``fc6`` and ``fc7``.

    Args:
        out_features: of "conv4_3" (stride 8) and "fc7" (stride 16).
        width: channels of the first stage; others and ``fc6`` and ``fc7`` follow in proportion.

    Raises:
        ValueError: another feature is asked for.
    """

    def __init__(self, out_features: Sequence[str] = ("conv4_3", "fc7"), width: int = 64) -> None:
        super().__init__()
        if unknown := set(out_features) - set(FEATURES):
            raise ValueError(f"VGG16 has {list(FEATURES)}, not {sorted(unknown)}")
        self._out_features = list(out_features)
        channels = 3
        for stage, (out_channels, count) in enumerate(STAGES, start=1):
            for number in range(1, count + 1):
                wide = out_channels * width // 64
                setattr(self, f"conv{stage}_{number}", nn.Conv2d(channels, wide, 3, padding=1))
                channels = wide
        top = 1024 * width // 64
        self.fc6 = nn.Conv2d(channels, top, 3, padding=6, dilation=6)
        self.fc7 = nn.Conv2d(top, top, 1)
        self._out_feature_channels = {"conv4_3": 512 * width // 64, "fc7": top}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # by default it has one

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> the features by name."""
        features = {}
        for stage, (_, count) in enumerate(STAGES, start=1):
            for number in range(1, count + 1):
                x = F.relu(getattr(self, f"conv{stage}_{number}")(x))
                features[f"conv{stage}_{number}"] = x
            if stage < len(STAGES):
                x = F.max_pool2d(x, 2, ceil_mode=True)
            else:
                x = F.max_pool2d(x, 3, stride=1, padding=1)
        features["fc7"] = F.relu(self.fc7(F.relu(self.fc6(x))))
        return {name: features[name] for name in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature."""
        return {
            name: ShapeSpec(self._out_feature_channels[name], stride=FEATURES[name].stride)
            for name in self._out_features
        }
