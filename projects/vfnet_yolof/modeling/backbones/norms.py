"""Normalisation layers of backbones, by name."""

from collections.abc import Callable
from typing import Any

from detectron2.layers import get_norm
from torch import nn


class StaticBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics, with a trainable affine part.

    This is how the VFNet and GFL references train their backbones (``norm_eval``).
    Detectron2's FrozenBatchNorm2d keeps weight and bias as buffers and does not train them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A new module is in training mode without anybody having called train().
        self.train()

    def train(self, mode: bool = True) -> "StaticBatchNorm2d":
        return super().train(False)


def norm_factory(
    norm: str, *, eps: float | None = None, momentum: float | None = None
) -> Callable[[int], nn.Module]:
    """A function from a number of channels to a normalisation layer.

    Args:
        norm: ``"StaticBN"`` (:class:`StaticBatchNorm2d`) or what Detectron2's ``get_norm``
            takes: ``"FrozenBN"``, ``"BN"``, ``"SyncBN"``, ``"naiveSyncBN"``, ``"GN"``.
        eps, momentum: of batch norms, where they are not torch's; other layers keep theirs.
    """

    def build(channels: int) -> nn.Module:
        layer = StaticBatchNorm2d(channels) if norm == "StaticBN" else get_norm(norm, channels)
        if hasattr(layer, "running_mean"):
            if eps is not None:
                layer.eps = eps
            if momentum is not None and hasattr(layer, "momentum"):
                layer.momentum = momentum
        return layer

    return build
