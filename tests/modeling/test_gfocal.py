"""GFL's first release: points and boxes in pixel indices, against MMDetection 1.x's formulas."""

import pytest
import torch
from tiny import picture, tiny_model
from torch import Tensor
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.meta_arch.base import flatten_levels
from vfnet_yolof.modeling.points import PixelIndexPoints, PointGenerator

CONFIG = "gfl/gfocal_r50_fpn_1x.py"


def test_points() -> None:
    """Anchors of stride s there are centred at (s - 1) / 2, and s apart."""
    points = PixelIndexPoints([8, 16]).points([(1, 3), (2, 1)], torch.device("cpu"))
    assert points[0].tolist() == [[3.5, 3.5], [11.5, 3.5], [19.5, 3.5]]
    assert points[1].tolist() == [[7.5, 7.5], [7.5, 23.5]]


def literal_boxes(model, batch: list[dict], width: int, height: int) -> Tensor:
    """All boxes of the first image in pixels of the output, as MMDetection 1.x counts them."""
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    predictions = model.head([features[name] for name in model.head_in_features])
    rows, columns = images.image_sizes[0]
    boxes = []
    for stride, sides in zip(model.points.strides, flatten_levels(predictions.sides), strict=True):
        bins = sides[0].unflatten(-1, (4, -1)).softmax(-1)
        left, top, right, bottom = ((bins * torch.arange(17)).sum(-1) * stride).unbind(-1)
        index = torch.arange(len(left))
        across = images.tensor.shape[-1] // stride or 1
        x = index % across * stride + (stride - 1) / 2
        y = index // across * stride + (stride - 1) / 2
        x1, x2 = ((v.clamp(0, columns - 1)) / (columns / width) for v in (x - left, x + right))
        y1, y2 = ((v.clamp(0, rows - 1)) / (rows / height) for v in (y - top, y + bottom))
        # COCO's width is x2 - x1 + 1 there.
        boxes.append(torch.stack([x1, y1, x1 + (x2 - x1 + 1), y1 + (y2 - y1 + 1)], dim=-1))
    return torch.cat(boxes)


@torch.no_grad()
def test_boxes_are_those_of_pixel_indices() -> None:
    model = tiny_model(CONFIG).eval()
    model.postprocessor.score_thresh = 0.0
    model.postprocessor.nms = HardNMS(1.0)
    model.postprocessor.max_detections = 1000
    batch = [picture() | {"height": 40, "width": 96}]
    found = model(batch)[0]["instances"].pred_boxes.tensor
    expected = literal_boxes(model, batch, width=96, height=40)
    expected[:, 0::2] = expected[:, 0::2].clamp(max=96)
    expected[:, 1::2] = expected[:, 1::2].clamp(max=40)
    assert len(found) > 100
    assert torch.cdist(found, expected).amin(1).max() < 1e-3
    # Later releases' boxes are others.
    plain = tiny_model("gfl/gfl_r50_fpn_1x.py").eval()
    plain.load_state_dict(model.state_dict())
    plain.postprocessor = model.postprocessor
    other = plain(batch)[0]["instances"].pred_boxes.tensor
    assert torch.cdist(other, expected).amin(1).max() > 0.5


def test_the_missing_pixel_is_taken_off_the_ground_truth() -> None:
    model = tiny_model(CONFIG)
    batch = [picture([(8, 8, 40, 48)]) | {"height": 32, "width": 128}]
    images = model.preprocess_image(batch)
    assert images.pixel_sizes.tolist() == [[0.5, 2.0]]
    sizes = [(-(-64 // s), -(-64 // s)) for s in model.points.strides]
    targets = model.assign(images, sizes, [x["instances"] for x in batch])
    assert targets.boxes.unique(dim=0).tolist() == [[8.0, 8.0, 39.5, 46.0]]
    assert batch[0]["instances"].gt_boxes.tensor.tolist() == [[8, 8, 40, 48]]


def test_trains() -> None:
    losses = tiny_model(CONFIG)([picture(), picture([])])
    assert {"loss_cls", "loss_box", "loss_dfl"} <= set(losses)
    assert sum(losses.values()).isfinite()


def test_other_points_are_refused() -> None:
    model = tiny_model(CONFIG)
    with pytest.raises(ValueError, match="PixelIndexPoints, got PointGenerator"):
        type(model)(
            points=PointGenerator(),
            backbone=model.backbone,
            head=model.head,
            assigner=model.assigner,
            postprocessor=model.postprocessor,
            num_classes=3,
            pixel_mean=[0, 0, 0],
            pixel_std=[1, 1, 1],
            head_in_features=model.head_in_features,
        )
