"""tools/verify_weights.py: exit status and message, with a small detector on invented pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import verify_weights
from detectron2.config import instantiate
from PIL import Image
from vfnet_yolof.configs import load_config
from vfnet_yolof.model_zoo.verify import Verification, command_line

CONFIG = "vfnet/vfnet_small.py"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two pictures of noise with two boxes each, in COCO's folders, with 80 categories."""
    rng = np.random.default_rng(0)
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "coco" / "annotations").mkdir()
    images, boxes = [], []
    for i in (1, 2):
        picture = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        picture.save(tmp_path / "coco" / "val2017" / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64})
        for j in (1, 2):
            box = {"bbox": [4 * j, 5, 20, 30], "area": 600, "iscrowd": 0, "category_id": i}
            boxes.append(box | {"id": 10 * i + j, "image_id": i})
    content = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, 81)],
    }
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(content))
    return tmp_path / "coco"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VFNET_YOLOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    path = tmp_path / "trained.pth"
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "optimizer": {"lr": 0.1}, "meta": {"epoch": 12}}, path)
    return path


def run(coco: Path, *options: str) -> int:
    return command_line(verify_weights.__doc__, [CONFIG, "--coco", str(coco), *options])


def test_converts_evaluates_and_compares(coco, weights, tmp_path, capsys):
    options = ("--weights", str(weights), "--device", "cpu", "--output", str(tmp_path / "out"))
    assert run(coco, *options, "--expected", "0.2") == 0
    assert "AP 0.00, published 0.2, difference -0.20" in capsys.readouterr().out
    assert list((tmp_path / "cache" / "converted").glob("vfnet_small-*.pth"))
    assert (tmp_path / "out" / "inference").is_dir()
    assert run(coco, *options, "--expected", "41.6") == 1
    assert "NOT as published" in capsys.readouterr().out


def test_classes_go_by_name(coco, weights, tmp_path, capsys):
    """The detector calls everything by its first name, which the data has as category 80."""
    names = [f"class {i}" for i in range(80, 0, -1)]
    content = torch.load(weights, weights_only=True)
    content["state_dict"]["module.head.cls_logits.bias"].fill_(-20.0)[0] = 1.0
    torch.save({**content, "meta": {"CLASSES": names}}, weights)
    options = ("--weights", str(weights), "--device", "cpu", "--output", str(tmp_path / "out"))
    assert run(coco, *options, "--expected", "0.2") == 0
    found = json.loads((tmp_path / "out" / "inference/coco_instances_results.json").read_text())
    assert {one["category_id"] for one in found} == {80}

    torch.save({**content, "meta": {"CLASSES": ["Class 1", *names[1:]]}}, weights)
    assert run(coco, *options, "--expected", "0.2") == 2
    assert "trained.pth has 'Class 1'" in capsys.readouterr().err


def test_the_limit_is_inclusive():
    assert Verification(41.3, 41.6, 0.3).passed
    assert Verification(41.9, 41.6, 0.3).passed
    assert not Verification(41.29, 41.6, 0.3).passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vfnet_r50_1x", "--coco", "."], "no row 'vfnet_r50_1x'.*did you mean"),
        (["atss_r101_fpn_ms_2x", "--coco", "."], "no AP on val2017.*43.6 on test-dev"),
        (["vfnet_r50_fpn_1x", "--coco", ".", "--weights", "absent.pth"], "absent.pth"),
        ([CONFIG, "--coco", "nowhere", "--expected", "1", "--weights", "trained.pth"], "nowhere"),
    ],
)
def test_what_stands_in_the_way(arguments, message, weights, capsys):
    assert command_line(None, arguments) == 2
    assert re.search(message, capsys.readouterr().err)
