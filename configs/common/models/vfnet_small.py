"""A VFNet for a CPU: half-width ResNet-18, 64 channels, trained from scratch."""

from .small import shrink as _shrink
from .vfnet import model

_shrink(model)
