"""Soft non-maximum suppression: what overlaps a better box loses score instead of going."""

import numpy as np
import torch
from torch import Tensor

from ..utils.soft_nms import TINY, soft_factors, soft_nms


class SoftNMS:
    """Greedy soft-NMS (Bodla et al., 2017), for each class by itself unless ``class_agnostic``.

    The best box that is left is kept, the scores of the others are lowered by their IoU with it,
    and so on. It takes place on the host, one step for all classes at once.

    Args:
        method: ``"linear"``: a score is multiplied by 1 - IoU where the IoU is at least
            ``iou_threshold`` (equation 2); ``"gaussian"``: by exp(-IoU^2 / sigma) (equation 3).
        iou_threshold: of the linear method, in [0, 1].
        sigma: of the gaussian method, greater than 0.
        min_score: boxes whose score falls below this are dropped; with 0 those whose score
            becomes 0.
        class_agnostic: let boxes of different classes lower each other's scores.

    Raises:
        ValueError: an unknown method or a value out of its range.
    """

    def __init__(
        self,
        method: str = "linear",
        iou_threshold: float = 0.65,
        sigma: float = 0.5,
        min_score: float = 1e-3,
        class_agnostic: bool = False,
    ) -> None:
        if method not in ("linear", "gaussian"):
            raise ValueError(f"method must be 'linear' or 'gaussian', got {method!r}")
        if not 0.0 <= iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must lie in [0, 1], got {iou_threshold}")
        if sigma <= 0.0:
            raise ValueError(f"sigma must be greater than 0, got {sigma}")
        if min_score < 0.0:
            raise ValueError(f"min_score must not be negative, got {min_score}")
        self.method = method
        self.iou_threshold = iou_threshold
        self.sigma = sigma
        self.min_score = min_score
        self.class_agnostic = class_agnostic

    @torch.no_grad()
    def __call__(
        self, boxes: Tensor, scores: Tensor, classes: Tensor, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        """Choose the boxes to keep.

        Args:
            boxes: (P, 4) xyxy pixels. scores: (P,). classes: (P,) int64.
            max_detections: how many to keep at most.

        Returns:
            Indices (Q,) of the kept boxes and their lowered scores (Q,), best first; of equal
            ones the first of the input comes first.
        """
        kept, lowered = soft_nms(
            boxes.float().cpu().numpy(),
            scores.float().cpu().numpy(),
            np.zeros(len(classes), np.int64) if self.class_agnostic else classes.cpu().numpy(),
            self._factors,
            max(self.min_score, TINY),
            max_detections,
        )
        return (
            torch.from_numpy(kept).to(boxes.device),
            torch.from_numpy(lowered).to(scores.device, scores.dtype),
        )

    def _factors(self, iou: np.ndarray) -> np.ndarray:
        """What scores are multiplied by."""
        return soft_factors(self.method, self.iou_threshold, self.sigma, iou)
