"""Locations beyond an image's own padded size, which a larger image of the batch makes."""

from torch import Tensor

CERTAIN_BACKGROUND = -1e4  # a logit whose loss and gradient as a negative are exactly 0


def without_padding(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Logits (R, K) whose rows outside of ``valid`` (R,) bool cost nothing and learn nothing.

    They become certain background instead of being left out: the length of a selection the host
    would have to wait for. None: all rows count.
    """
    if valid is None:
        return logits
    return logits.masked_fill(~valid[:, None], CERTAIN_BACKGROUND)
