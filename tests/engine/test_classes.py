"""Class names decide: a model and data that count the same classes otherwise, and other classes."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image
from vfnet_yolof.cli.training import command_line
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.data import register_coco_json
from vfnet_yolof.engine.classes import class_lookup, require_resumed_classes
from vfnet_yolof.engine.evaluation import EvaluatorByName
from vfnet_yolof.utils.class_names import Classes

CONFIG = "gfl/gfl_small_shapes.py"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    return folder


def annotations(path, names):
    """A file with the names as categories 1, 2, ... and a box of each."""
    boxes = [
        {"id": i, "image_id": 0, "category_id": i, "bbox": [6 * i, 6, 30, 24], "area": 720}
        for i in range(1, len(names) + 1)
    ]
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": 64, "height": 48}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": [{**box, "iscrowd": 0} for box in boxes],
    }
    path.write_text(json.dumps(content))
    return path


def weights(path, names, **entries):
    """A detector that calls everything by the first of its names."""
    cfg = load_config(CONFIG)
    cfg.model.num_classes = len(names)
    model = instantiate(cfg.model)
    torch.nn.init.constant_(model.head.cls_logits.bias, -20.0)
    model.head.cls_logits.bias.data[0] = 1.0
    torch.save({"model": model.state_dict(), "class_names": names, **entries}, path)
    return path


def evaluate(tmp_path, file, checkpoint, *options):
    """Exit status of the evaluation."""
    return command_line(
        [
            *("--config-file", CONFIG, "--num-gpus", "0", "--eval-only", *options),
            *("--val-json", str(file), "--val-images", str(tmp_path / "images")),
            f"train.output_dir={tmp_path / 'out'}",
            f"train.init_checkpoint={checkpoint}",
        ]
    )


def found_categories(folder):
    found = json.loads((folder / "inference" / "coco_instances_results.json").read_text())
    return {one["category_id"] for one in found}


def test_evaluation_goes_by_names(tmp_path, images):
    file = annotations(tmp_path / "val.json", ["blue", "red"])
    assert evaluate(tmp_path, file, weights(tmp_path / "w.pth", ["red", "blue"])) == 0
    assert found_categories(tmp_path / "out") == {2}
    with open(tmp_path / "out" / "inference" / "per_class.csv") as file:
        detections = {row["class"]: int(row["detections"]) for row in csv.DictReader(file)}
    assert detections["blue"] == 0 < detections["red"]
    log = (tmp_path / "out" / "log.txt").read_text()
    assert log.count("detections are mapped by name") == 1


@pytest.mark.parametrize("names", [["red", "blue"], ["red_", "blue"]])
def test_the_same_order_stays(tmp_path, images, names):
    file = annotations(tmp_path / "val.json", [name.replace("_", " ") for name in names])
    assert evaluate(tmp_path, file, weights(tmp_path / "w.pth", names)) == 0
    assert found_categories(tmp_path / "out") == {1}


@pytest.mark.parametrize(
    ("trained", "data", "says"),
    [
        (["red", "blue"], ["blue", "green"], "only .*w.pth has 'red'; only data set .* 'green'"),
        (["red", "blue"], ["Red", "blue"], "'red' and 'Red' differ in spelling only"),
        (["red", "blue", "green"], ["red", "green"], "only .*w.pth has 'blue'"),
        (["red"], ["red", "green"], "only data set .* has 'green'"),
        (["red", "red"], ["red", "blue"], "w.pth has 'red' more than once"),
    ],
)
def test_what_names_cannot_settle_is_refused(tmp_path, images, capsys, trained, data, says):
    file = annotations(tmp_path / "val.json", data)
    assert evaluate(tmp_path, file, weights(tmp_path / "w.pth", trained)) == 2
    message = capsys.readouterr().err
    assert "have different classes" in message
    assert re.search(says, message)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_checkpoint_without_names_is_evaluated_by_number_with_a_warning(tmp_path, images):
    file = annotations(tmp_path / "val.json", ["blue", "red"])
    checkpoint = weights(tmp_path / "w.pth", ["red", "blue"], class_names=[])
    assert evaluate(tmp_path, file, checkpoint) == 0
    assert found_categories(tmp_path / "out") == {1}
    assert (
        "w.pth has no class names: its classes are taken"
        in (tmp_path / "out" / "log.txt").read_text()
    )


@pytest.fixture
def two_orders(tmp_path, images):
    """Names of a training set with (red, blue) and a test set with (blue, red)."""
    names = {"train": "classes_red_blue", "test": "classes_blue_red"}
    for split, name in names.items():
        classes = ["red", "blue"] if split == "train" else ["blue", "red"]
        register_coco_json(name, annotations(tmp_path / f"{split}.json", classes), images)
    yield names
    for name in names.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def train(tmp_path, names, *options):
    return command_line(
        [
            *("--config-file", CONFIG, "--num-gpus", "0", *options),
            *("model.num_classes=2", "train.max_iter=1", "optimizer.lr=0.0"),
            *("dataloader.train.total_batch_size=1", "dataloader.train.num_workers=0"),
            *("train.eval_period=1", f"train.output_dir={tmp_path / 'out'}"),
            f"dataloader.train.dataset.names={names['train']}",
            f"dataloader.test.dataset.names={names['test']}",
        ]
    )


@pytest.mark.parametrize("option", ["train.init_checkpoint={}", "--init-from={}"])
def test_training_starts_and_evaluates_by_names(tmp_path, two_orders, option):
    """From a checkpoint with (blue, red), on (red, blue), tested on (blue, red)."""
    checkpoint = weights(tmp_path / "w.pth", ["blue", "red"])
    assert train(tmp_path, two_orders, option.format(checkpoint)) == 0
    assert found_categories(tmp_path / "out") == {1}
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert final["class_names"] == ["red", "blue"]
    assert final["category_ids"] == [1, 2]
    assert final["model"]["head.cls_logits.bias"].tolist() == [-20.0, 1.0]


def test_validation_losses_need_one_order(tmp_path, two_orders, capsys):
    assert train(tmp_path, two_orders, "train.val_loss.enabled=True") == 2
    assert "in the order of the training set" in capsys.readouterr().err


class Recorder:
    """Keeps what it is given."""

    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen += outputs

    def evaluate(self):
        return {"seen": len(self.seen)}


def test_detections_are_mapped_and_the_models_own_are_left_alone():
    own = Instances(
        (8, 8), pred_boxes=Boxes(torch.zeros(3, 4)), pred_classes=torch.tensor([2, 0, 2])
    )
    recorder = Recorder()
    evaluator = EvaluatorByName(recorder, [1, 2, 0])
    evaluator.reset()
    evaluator.process([{}], [{"instances": own}])
    assert recorder.seen[0]["instances"].pred_classes.tolist() == [0, 1, 0]
    assert own.pred_classes.tolist() == [2, 0, 2]
    assert evaluator.evaluate() == {"seen": 1}


def test_where_the_data_has_no_names_nothing_is_compared():
    assert class_lookup(Classes(["red"], "w.pth"), Classes([], "data set 'x'")) is None


def test_resuming_with_another_order_is_refused(tmp_path, two_orders, capsys):
    checkpoint = weights(tmp_path / "w.pth", ["red", "blue"])
    assert train(tmp_path, two_orders, f"train.init_checkpoint={checkpoint}") == 0
    turned = {"train": two_orders["test"], "test": two_orders["train"]}
    assert train(tmp_path, turned, "--resume", "train.max_iter=2") == 2
    message = capsys.readouterr().err
    assert "has these classes otherwise: class 0 is 'red'" in message
    assert f"--weights {tmp_path / 'out' / 'model_final.pth'}" in message
    assert train(tmp_path, two_orders, "--resume", "train.max_iter=2") == 0


def test_resuming_with_other_names_is_refused():
    run, data = Classes(["red", "blue"], "m.pth"), "data set 'x'"
    with pytest.raises(ConfigError, match="m.pth has other classes: only m.pth has 'blue'; only d"):
        require_resumed_classes(run, Classes(["red", "black"], data))
    with pytest.raises(ConfigError, match="otherwise: class 0 is 'red' in m.pth, 'blue' in d"):
        require_resumed_classes(run, Classes(["blue", "red"], data))
    for same in (["red", "blue"], []):
        require_resumed_classes(run, Classes(same, data))
