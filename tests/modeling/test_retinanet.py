"""RetinaNet as a config of this project's parts against Detectron2's own RetinaNet."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.utils.events import EventStorage
from tiny import NUM_CLASSES, empty_picture, picture
from torch import nn
from vfnet_yolof.config.packaged import load_config

CHANNELS = 16
BATCH = [picture(size=(96, 128)), empty_picture(size=(80, 120)), picture(seed=2)]


def ours() -> nn.Module:
    model = load_config("baselines/retinanet_r50_fpn_1x.py").model
    model.num_classes = NUM_CLASSES
    bottom_up = model.backbone.bottom_up
    bottom_up.depth, bottom_up.stem_channels, bottom_up.res2_channels = 18, 8, 8
    bottom_up.stride_in_1x1, bottom_up.freeze_at = False, 0
    model.backbone.out_channels = model.head.conv_channels = CHANNELS
    model.backbone.top_block.in_channels = 64
    torch.manual_seed(0)
    detector = instantiate(model)
    # At their initialisation the head's outputs hardly tell one place from another, and here the
    # backbone's norms, which nobody trained, let them grow without bound: scale them.
    with torch.no_grad():
        images = detector.preprocess_image(BATCH).tensor
        features = list(detector.backbone(images).values())
        for layer, spread in ((detector.head.cls_logits, 1.5), (detector.head.deltas, 0.2)):
            outputs = detector.head(features)
            maps = outputs.logits if layer is detector.head.cls_logits else outputs.deltas
            layer.weight *= spread / torch.cat([x.flatten() for x in maps]).std()
    return detector


def theirs(model: nn.Module) -> RetinaNet:
    """Detectron2's, with the same backbone and the same weights in its head."""
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=CHANNELS)] * 5,
        num_classes=NUM_CLASSES,
        num_anchors=9,
        conv_dims=[CHANNELS] * 4,
    )
    for i in range(4):
        head.cls_subnet[2 * i].load_state_dict(model.head.cls_tower[i].conv.state_dict())
        head.bbox_subnet[2 * i].load_state_dict(model.head.reg_tower[i].conv.state_dict())
    head.cls_score.load_state_dict(model.head.cls_logits.state_dict())
    head.bbox_pred.load_state_dict(model.head.deltas.state_dict())
    return RetinaNet(
        backbone=model.backbone,
        head=head,
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        anchor_generator=model.anchor_generator,
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=NUM_CLASSES,
        pixel_mean=model.pixel_mean.flatten().tolist(),
        pixel_std=model.pixel_std.flatten().tolist(),
    )


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, RetinaNet]:
    model = ours()
    return model, theirs(model)


def test_losses(pair) -> None:
    model, other = pair
    got = model.train()(BATCH)
    with EventStorage() as storage:
        want = other.train()(BATCH)
        num_pos = round(storage.latest()["num_pos_anchors"][0] * len(BATCH))
    assert num_pos > 10
    # Theirs are divided by a moving average that starts at 100.
    factor = (0.9 * 100 + 0.1 * num_pos) / num_pos
    assert got["loss_cls"].item() == pytest.approx(want["loss_cls"].item() * factor, rel=1e-5)
    assert got["loss_box"].item() == pytest.approx(want["loss_box_reg"].item() * factor, rel=1e-5)


def test_detections(pair) -> None:
    model, other = pair
    with torch.no_grad():
        got, want = model.eval()(BATCH), other.eval()(BATCH)
    assert sum(len(x["instances"]) for x in got) > 50
    for a, b in zip(got, want, strict=True):
        a, b = a["instances"], b["instances"]
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-3, rtol=0)
        assert torch.equal(a.pred_classes, b.pred_classes)
