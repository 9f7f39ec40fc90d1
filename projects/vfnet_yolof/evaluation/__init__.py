"""Evaluation of detections."""

from .coco import CocoEvaluator

__all__ = ["CocoEvaluator"]
