"""SGD as MMDetection's configurations of 2018 to 2020 have it: all parameters alike."""

from .optim import optimizer

optimizer.params.bias_lr_factor = 1.0
optimizer.params.weight_decay_bias = None
