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
from .convert import convert_data
from .datasets import (
    UserDatasets,
    dataset_class_names,
    get_dataset_dicts,
    register_coco_json,
    register_shapes,
    register_user_datasets,
)
from .layouts import open_data
from .loader import TrainLoader, build_test_loader, build_train_loader
from .mapper import DetectionMapper
from .mosaic import Mosaic
from .sampler import GroupedBatchSampler, SampleKey
from .ssd_augmentations import Expand, MinIoURandomCrop, PhotoMetricDistortion
from .transforms import AugInput
from .validate import Report, validate_coco

__all__ = [
    "AugInput",
    "CutOut",
    "DetectionMapper",
    "Expand",
    "GroupedBatchSampler",
    "ImageReadError",
    "JitterCrop",
    "MinIoURandomCrop",
    "Mosaic",
    "PhotoMetricDistortion",
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
    "convert_data",
    "dataset_class_names",
    "get_dataset_dicts",
    "image_size",
    "open_data",
    "read_image",
    "register_coco_json",
    "register_user_datasets",
    "validate_coco",
]

register_shapes()
