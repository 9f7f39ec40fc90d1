"""The toy with a mistake in its code."""

from detectron2.config import LazyCall as L
from failing_toy import Failing

from .toy_config import dataloader, lr_multiplier, optimizer, train

model = L(Failing)()
