"""Detectron2's ResNets for inference on the CPU: sums and ReLUs within their convolutions."""

import torch
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.backbones.resnet import DeformBottleneckBlock
from .fused_conv import FusedConv2d

BLOCKS = (BasicBlock, BottleneckBlock, DeformBottleneckBlock)


class FusedStem(nn.Module):
    """The function of Detectron2's ``BasicStem`` without a norm."""

    def __init__(self, stem: BasicStem) -> None:
        super().__init__()
        self.conv1 = FusedConv2d(stem.conv1, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 4, W / 4)."""
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class FusedBlock(nn.Module):
    """The function of a residual block of two or three convolutions without norms.

    The sum is made in the memory of its shortcut, which without a projection is the input.
    """

    def __init__(self, block: BasicBlock | BottleneckBlock | DeformBottleneckBlock) -> None:
        super().__init__()
        convs = [block.conv1, block.conv2]
        if hasattr(block, "conv3"):
            convs.append(block.conv3)
        self.convs = nn.ModuleList(
            FusedConv2d(conv, relu=True) if FusedConv2d.suits(conv) else conv for conv in convs
        )
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, H / stride, W / stride); ``x`` is overwritten."""
        total = x if self.shortcut is None else self.shortcut(x)
        *first, last = self.convs
        for conv in first:
            x = conv(x) if isinstance(conv, FusedConv2d) else F.relu_(conv(x))
        if isinstance(last, FusedConv2d):
            return last.add_to(total.contiguous(memory_format=torch.channels_last), x)
        output: Tensor = last(x)
        return F.relu_(output.add_(total))


def fuse_resnets(network: nn.Module) -> None:
    """Change ``network``, whose norms are folded, where it is or has a ResNet of Detectron2."""
    for resnet in network.modules():
        if not isinstance(resnet, ResNet):
            continue
        if type(resnet.stem) is BasicStem and FusedConv2d.suits(resnet.stem.conv1):
            resnet.stem = FusedStem(resnet.stem)
        for stage in resnet.stages:
            for index, block in enumerate(stage):
                # The input of a stage may be a feature that others read.
                owned = index > 0 or getattr(block, "shortcut", None) is not None
                if owned and type(block) in BLOCKS and all(map(_is_product, block.children())):
                    stage[index] = FusedBlock(block)


def _is_product(conv: nn.Module) -> bool:
    """Whether a convolution, of any kind, has neither norm nor activation."""
    return all(getattr(conv, name, None) is None for name in ("norm", "activation"))
