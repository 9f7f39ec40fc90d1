"""A detector made ready for training: the same losses and gradients, in less time."""

import torch
from torch import nn

from . import winograd
from .replace import replace_modules
from .training_conv import TrainingConv2d, has_fixed_statistics, is_plain_conv


def optimize_training(model: nn.Module, *, use_winograd: bool | None = None) -> int:
    """Change ``model`` so that its training steps take less time.

    Weights and feature maps have their channels last, batch norms with fixed statistics are
    multiplied into the weights of their convolutions in each step, and on the CPU in float32 3x3
    convolutions with many channels and their gradients are computed by Winograd's algorithm.
    Parameters stay what and where they are, so that checkpoints, optimizers and averages do not
    notice; losses and gradients differ by rounding. To be called on the device of the training.

    Args:
        model: any network, before it is wrapped for distributed training.
        use_winograd: use that algorithm; by default on the CPU.

    Returns:
        The number of convolutions that are computed in another way.
    """
    if use_winograd is None:
        use_winograd = next(model.parameters()).device.type == "cpu"

    def faster(module: nn.Module) -> nn.Module | None:
        if not is_plain_conv(module) or isinstance(module, TrainingConv2d):
            return None
        folds = has_fixed_statistics(getattr(module, "norm", None))
        if folds or (use_winograd and winograd.suits(module)):
            return TrainingConv2d(module, use_winograd=use_winograd)
        return None

    count = replace_modules(model, faster)
    model.to(memory_format=torch.channels_last)
    return count
