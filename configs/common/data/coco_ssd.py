"""COCO 2017 at 1333 x 800 with random flips (section 5 of the VFNet paper).

Images are resized as MMDetection resizes them, in which the official weights were trained; for
Detectron2's resizing set dataloader.train.mapper.interpolation to pil, which is that of the test
images, too.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from vfnet_yolof.data import (
    DetectionMapper,
    build_test_loader,
    build_train_loader,
    get_dataset_dicts,
)
from vfnet_yolof.evaluation import CocoEvaluator
from vfnet_yolof.inference.tta import DenseTTA

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_train", filter_empty=True),
    mapper=L(DetectionMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
            L(T.RandomFlip)(),
        ],
        image_format="RGB",
        interpolation="opencv",
    ),
    total_batch_size=16,
    num_workers=4,
)

dataloader.test = L(build_test_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(DetectionMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="${...train.mapper.image_format}",
        interpolation="${...train.mapper.interpolation}",
    ),
    num_workers=4,
)

# --eval-only --tta: the sizes (long edge, short edge) at which VFNet's authors test
dataloader.tta = L(DenseTTA)(
    sizes=[[1200, 800], [1300, 900], [1500, 1000], [1600, 1200]],
    flip=True,
    interpolation="${..test.mapper.interpolation}",
)

dataloader.evaluator = L(CocoEvaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
)
