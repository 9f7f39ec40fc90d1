"""tools/verify_weights.py: exit status and message, with a small detector on invented pictures."""

import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import verify_weights
from detectron2.config import instantiate
from omegaconf import DictConfig
from PIL import Image
from tiny import shrink_yolof
from vfnet_yolof import model_zoo
from vfnet_yolof.cli.zoo import verify_tool
from vfnet_yolof.config import read as config_reader
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.model_zoo.table import ROWS
from vfnet_yolof.model_zoo.verify import Verification, pipeline_of
from vfnet_yolof.modeling.meta_arch import YOLOF

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
    return verify_tool(verify_weights.__doc__, [CONFIG, "--coco", str(coco), *options])


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
    assert verify_tool(None, arguments) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row].weights is not None])
def test_a_row_says_how_its_weights_see_pictures(row: str) -> None:
    cfg = model_zoo.get_config(row, trained=True)
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert pipeline_of(cfg, model) == ROWS[row].weights.pipeline


class TestWeightsOfOtherCodeThanTheRows:
    """MMDetection's YOLOF: resized by OpenCV and padded to 32, its authors' by Pillow and not."""

    ROW = "yolof/yolof_r50_c5_1x"

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def tiny_config(name: str, trust: object = None) -> DictConfig:
            config = shrink_yolof(load_config(name))
            config.model.num_classes = 80
            return config

        monkeypatch.setattr(config_reader, "load_config", tiny_config)
        monkeypatch.setenv("VFNET_YOLOF_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A small stand-in for the published file, under its name."""
        torch.manual_seed(0)
        path = tmp_path / ROWS[self.ROW].weights.file
        torch.save({"model": model_zoo.get(self.ROW).state_dict()}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        weights = ROWS[self.ROW].weights._replace(sha256=digest)
        monkeypatch.setitem(ROWS, self.ROW, ROWS[self.ROW]._replace(weights=weights))
        return path

    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
        """What reaches the network, (N, 3, H, W)."""
        tensors: list[np.ndarray] = []
        preprocess = YOLOF.preprocess_image

        def remember(self, batched_inputs):
            images = preprocess(self, batched_inputs)
            tensors.append(images.tensor.numpy())
            return images

        monkeypatch.setattr(YOLOF, "preprocess_image", remember)
        return tensors

    def verify(self, coco: Path, weights: Path) -> None:
        options = ["--coco", str(coco), "--weights", str(weights), "--device", "cpu"]
        assert verify_tool(None, [self.ROW, *options, "--expected", "50"]) == 1

    def test_verify_brings_pictures_as_they_were_in_training(self, coco, published, seen) -> None:
        self.verify(coco, published)
        mean = np.array([103.53, 116.28, 123.675])
        for name, tensor in zip(("1.jpg", "2.jpg"), seen, strict=True):
            pixels = cv2.cvtColor(
                np.asarray(Image.open(coco / "val2017" / name)), cv2.COLOR_RGB2BGR
            )
            # 48 x 64 px become 800 x 1067, padded to 800 x 1088 with zeros
            expected = np.zeros((800, 1088, 3))
            expected[:, :1067] = cv2.resize(pixels, (1067, 800)) - mean
            np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), expected, atol=1e-4)

    def test_other_weights_of_the_row_see_them_as_the_config_has_it(
        self, coco, published, seen, tmp_path
    ) -> None:
        own = tmp_path / "own.pth"
        torch.manual_seed(1)
        torch.save({"model": model_zoo.get(self.ROW).state_dict()}, own)
        self.verify(coco, own)
        assert [x.shape for x in seen] == [(1, 3, 800, 1067)] * 2

    def test_the_file_is_known_under_any_name(self, published, tmp_path) -> None:
        renamed = published.rename(tmp_path / "renamed.pth")
        model = model_zoo.get(self.ROW, weights=renamed)
        assert model.backbone.size_divisibility == 32
        assert model.postprocessor.clip == "before_nms"
        converted = model_zoo.converted_weights(self.ROW, model, renamed)
        assert model_zoo.get(self.ROW, weights=converted).backbone.size_divisibility == 32

    def test_without_weights_a_model_is_the_papers(self) -> None:
        model = model_zoo.get(self.ROW)
        assert model.backbone.size_divisibility == 0
        assert model.postprocessor.clip == "after_nms"
        assert model_zoo.get_config(self.ROW).dataloader.test.mapper.interpolation == "pil"
        with pytest.raises(model_zoo.WeightsUnavailableError, match="no weights are published"):
            model_zoo.get_config("yolof_r50_c5_ms_6x", trained=True)
