"""A run that overfits a few dozen images: nothing pulls the weights back."""

from .data.small import dataloader
from .small_run import last_for as _last_for
from .small_run import optimizer, train


def resize(loaders, short_edge_length, max_size):
    """Set the size of the images of a ``dataloader``, for training and for validation."""
    for loader in (loaders.train, loaders.test):
        loader.mapper.augmentations[0].short_edge_length = short_edge_length
        loader.mapper.augmentations[0].max_size = max_size


optimizer.weight_decay = 0.0001
lr_multiplier = _last_for(train, 1200)
