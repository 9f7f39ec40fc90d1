"""A GFL for a CPU: half-width ResNet-18, 64 channels, trained from scratch."""

from .gfl import model
from .small import shrink as _shrink

_shrink(model)
