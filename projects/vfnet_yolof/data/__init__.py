"""Data sets, mapping, sampling and loading. Importing it registers the built-in shapes."""

from ..utils.images import ImageReadError, image_size, read_image
from .augmentations import (
    CutOut,
    JitterCrop,
    RandomDistort,
    RandomShift,
    RelativeRangeCrop,
    ResizeIndependentEdges,
    ResizeSquare,
)
from .datasets import (
    UserDatasets,
    dataset_class_names,
    get_dataset_dicts,
    register_coco_json,
    register_shapes,
    register_user_datasets,
)
from .loader import TrainLoader, build_test_loader, build_train_loader
from .mapper import DetectionMapper
from .mosaic import Mosaic
from .sampler import GroupedBatchSampler, SampleKey
from .transforms import AugInput
from .validate import Report, validate_coco

__all__ = [
    "AugInput",
    "CutOut",
    "DetectionMapper",
    "GroupedBatchSampler",
    "ImageReadError",
    "JitterCrop",
    "Mosaic",
    "RandomDistort",
    "RandomShift",
    "RelativeRangeCrop",
    "Report",
    "ResizeIndependentEdges",
    "ResizeSquare",
    "SampleKey",
    "TrainLoader",
    "UserDatasets",
    "build_test_loader",
    "build_train_loader",
    "dataset_class_names",
    "get_dataset_dicts",
    "image_size",
    "read_image",
    "register_coco_json",
    "register_user_datasets",
    "validate_coco",
]

register_shapes()
