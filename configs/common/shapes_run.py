"""A short run of a small network on the embedded shapes, 8 images a batch."""

from .data.shapes import dataloader
from .small_run import lr_multiplier, optimizer, train

train.reference_batch_size = 8
