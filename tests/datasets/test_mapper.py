from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform, HFlipTransform
from PIL import Image
from vfnet_yolof.data import DetectionMapper, ImageReadError


def test_training_sample(records):
    before = copy.deepcopy(records[1])
    sample = DetectionMapper(is_train=True, augmentations=[HFlipTransform(48)])(records[1])
    pixels = np.asarray(Image.open(records[1]["file_name"]))
    assert torch.equal(sample["image"], torch.from_numpy(pixels[:, ::-1].copy()).permute(2, 0, 1))
    assert sample["image"].dtype == torch.uint8
    instances = sample["instances"]
    assert instances.image_size == (32, 48)
    assert instances.gt_boxes.tensor.tolist() == [[48 - 13, 4, 48 - 3, 12]]
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.tolist() == [1]
    kept = {k: sample[k] for k in ("file_name", "image_id", "height", "width")}
    assert kept == {k: before[k] for k in kept}
    assert "annotations" not in sample
    assert records[1] == before


def test_agrees_with_detectron2s_mapper(records):
    augmentations = [
        T.ResizeShortestEdge((20, 60), 90),
        T.RandomFlip(),
        T.RandomCrop("relative", (0.6, 0.6)),
    ]
    ours = DetectionMapper(is_train=True, augmentations=augmentations, image_format="BGR")
    theirs = DatasetMapper(is_train=True, augmentations=augmentations, image_format="BGR")
    for seed, record in enumerate(records):
        np.random.seed(seed)
        got = ours(record)
        np.random.seed(seed)
        want = theirs(record)
        assert torch.equal(got["image"], want["image"])
        boxes, wanted = got["instances"].gt_boxes.tensor, want["instances"].gt_boxes.tensor
        assert torch.allclose(boxes, wanted, atol=1e-5), (boxes, wanted)
        assert torch.equal(got["instances"].gt_classes, want["instances"].gt_classes)


def test_channel_order_and_inference(records):
    rgb, bgr = (
        DetectionMapper(is_train=False, augmentations=[], image_format=f)(records[0])
        for f in ("RGB", "BGR")
    )
    assert torch.equal(rgb["image"], bgr["image"].flip(0))
    assert not torch.equal(rgb["image"], bgr["image"])
    assert "instances" not in rgb
    assert "annotations" not in rgb
    with pytest.raises(ValueError, match="'XYZ'.*RGB, BGR"):
        DetectionMapper(is_train=False, augmentations=[], image_format="XYZ")


def test_crowds_and_boxes_that_a_crop_cuts_away_are_left_out(records):
    record = records[0]
    box = {"bbox_mode": BoxMode.XYXY_ABS}
    record["annotations"] = [
        {**box, "bbox": [0, 0, 20, 20], "category_id": 1},
        {**box, "bbox": [0, 0, 20, 20], "category_id": 2, "iscrowd": 1},
        {**box, "bbox": [30, 0, 40, 20], "category_id": 3},
        {**box, "bbox": [5, 5, 5, 9], "category_id": 4},
    ]
    crop = CropTransform(0, 0, 16, 32)
    instances = DetectionMapper(is_train=True, augmentations=[crop])(record)["instances"]
    assert instances.gt_classes.tolist() == [1]
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 16, 20]]


def test_image_without_boxes(records):
    for nothing in ([], None):
        records[3]["annotations"] = nothing
        sample = DetectionMapper(is_train=True, augmentations=[T.RandomFlip()])(records[3])
        assert sample["instances"].gt_boxes.tensor.shape == (0, 4)
        assert sample["instances"].gt_classes.dtype == torch.int64


def test_exif_orientation_is_applied(records, tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # 90 degrees
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    record = {"file_name": str(path), "image_id": 1}
    sample = DetectionMapper(is_train=False, augmentations=[])(record)
    assert sample["image"].shape == (3, 40, 20)
    assert (sample["height"], sample["width"]) == (40, 20)


def test_bad_files_are_named(records, tmp_path):
    mapper = DetectionMapper(is_train=True, augmentations=[])
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        mapper({**records[0], "file_name": str(tmp_path / "nowhere.png")})
    whole = (tmp_path / "0.png").read_bytes()
    for name, content in (("cut.png", whole[: len(whole) // 2]), ("text.png", b"not an image")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageReadError, match=name):
            mapper({**records[0], "file_name": str(tmp_path / name)})
    with pytest.raises(SizeMismatchError, match=r"0\.png"):
        mapper({**records[0], "width": 47})
