"""YOLOF in the tools around the models: predictors, demo, yacs."""

from pathlib import Path

import demo as tool
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.structures import Instances
from PIL import Image
from tiny import picture
from torch import nn
from vfnet_yolof import Predictor
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.packaged import find_config
from vfnet_yolof.modeling.yacs import get_cfg_with_keys

NAMES = ["ant", "bee", "cat"]


def spread_scores(model: nn.Module) -> nn.Module:
    """Weights with certain detections: scores far apart."""
    torch.manual_seed(0)
    nn.init.normal_(model.head.cls_logits.weight, std=0.5)
    nn.init.normal_(model.head.deltas.weight, std=0.05)
    nn.init.constant_(model.head.cls_logits.bias, 0)
    return model


@pytest.fixture
def yacs(tmp_path: Path) -> CfgNode:
    """A narrow YOLOF with weights, in Detectron2's own kind of config."""
    cfg = get_cfg_with_keys()
    cfg.merge_from_file(find_config("yolof/yolof_r50_c5_1x.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.YOLOF.NUM_CLASSES = len(NAMES)
    cfg.MODEL.YOLOF.ENCODER.CHANNELS = cfg.MODEL.YOLOF.DECODER.CONV_CHANNELS = 32
    cfg.MODEL.YOLOF.SCORE_THRESH_TEST = 0.01
    cfg.INPUT.MIN_SIZE_TEST = 128
    cfg.DATASETS.TEST = ()
    model = spread_scores(read_inference_config(cfg).build_model())
    cfg.MODEL.WEIGHTS = str(tmp_path / "yolof.pth")
    torch.save({"model": model.state_dict(), "class_names": NAMES}, cfg.MODEL.WEIGHTS)
    return cfg


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(path)
    return path


def assert_same(got: Instances, want: Instances) -> None:
    assert got.image_size == want.image_size == (160, 240)
    assert len(got) == len(want) > 0
    torch.testing.assert_close(got.scores, want.scores)
    assert got.pred_classes.tolist() == want.pred_classes.tolist()
    torch.testing.assert_close(got.pred_boxes.tensor, want.pred_boxes.tensor)


def test_detectron2s_predictor_and_ours_agree(yacs: CfgNode, photo: Path) -> None:
    # Not the optimised copy, whose sums are in another order.
    ours = Predictor(yacs, yacs.MODEL.WEIGHTS, device="cpu", score_thresh=0.01, optimized=False)
    theirs = DefaultPredictor(yacs)
    image = read_image(str(photo), format="BGR")
    assert_same(ours(image), theirs(image)["instances"])
    assert ours.class_names == NAMES


def test_demo_draws_yolofs_detections(photo: Path, tmp_path: Path) -> None:
    weights, config = tmp_path / "small.pth", "yolof/yolof_small_shapes.py"
    model = spread_scores(read_inference_config(config).build_model())
    torch.save({"model": model.state_dict(), "class_names": list("abcdef")}, weights)
    output = tmp_path / "out"
    options = ["--config-file", config, "--weights", str(weights), "--device", "cpu"]
    assert tool.main([*options, "--input", str(photo), "--output", str(output)]) == 0
    assert (output / "photo.png").is_file()
    assert Predictor(config, str(weights), device="cpu").class_names == list("abcdef")


def test_what_yacs_builds_trains(yacs: CfgNode) -> None:
    """Detectron2's own builders of model and optimizer, one step on a picture."""
    model = DefaultTrainer.build_model(yacs)
    optimizer = DefaultTrainer.build_optimizer(yacs, model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sum(model([picture(size=(128, 128)), picture(size=(128, 128), seed=2)]).values()).backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(before[k], v)}
    assert {"head.deltas.weight", "backbone.blocks.3.conv2.weight"} <= changed
    frozen = {
        k for k in before if k.startswith(("backbone.bottom_up.stem", "backbone.bottom_up.res2"))
    }
    assert not frozen & changed
