"""From the command line to the config that runs: own data, yaml files, the record of a run."""

import json

import numpy as np
import pytest
from detectron2.config import instantiate
from PIL import Image
from vfnet_yolof.cli.training import argument_parser, read_arguments
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.read import joined_pairs

YAML = """
MODEL:
  META_ARCHITECTURE: VFNet
  WEIGHTS: ""
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS: {DEPTH: 18, OUT_FEATURES: [res3, res4, res5], RES2_OUT_CHANNELS: 64, NORM: BN}
  FPN: {IN_FEATURES: [res3, res4, res5], OUT_CHANNELS: 64}
  VFNET: {CONV_CHANNELS: 64, NUM_CONVS: 1}
DATASETS: {TRAIN: [shapes_train], TEST: [shapes_val]}
DATALOADER: {NUM_WORKERS: 0, FILTER_EMPTY_ANNOTATIONS: false}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64, FORMAT: RGB}
SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 2, STEPS: [1], WARMUP_ITERS: 1, BIAS_LR_FACTOR: 2.0,
         BASE_LR: 0.001, REFERENCE_BATCH_SIZE: 2, CHECKPOINT_PERIOD: 1}
"""


@pytest.fixture
def own_data(tmp_path):
    """Arguments for a data set of two classes and four pictures."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
    for i in range(1, 5):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        box = {"id": i, "image_id": i, "category_id": (3, 9)[i % 2], "iscrowd": 0}
        content["annotations"].append({**box, "bbox": [8, 8, 30, 40], "area": 1200})
    annotations = tmp_path / "boxes.json"
    annotations.write_text(json.dumps(content))
    both = ["train", "val"]
    return [
        x for s in both for x in (f"--{s}-json", str(annotations), f"--{s}-images", str(images))
    ]


def prepared(*arguments):
    config = read_arguments(argument_parser().parse_intermixed_args(arguments))
    return config.cfg, config.changes


def test_own_data_sets_names_and_classes(own_data):
    cfg, changes = prepared("--config-file", "vfnet/vfnet_r50_fpn_1x.py", *own_data)
    assert cfg.model.num_classes == 2
    assert cfg.model.head.num_classes == 2
    assert cfg.dataloader.train.dataset.names.startswith("user_train")
    assert cfg.dataloader.evaluator.dataset_name == cfg.dataloader.test.dataset.names
    assert "model.num_classes: 80 -> 2" in changes


def test_own_images_without_boxes_are_negatives(own_data, tmp_path, caplog):
    path = tmp_path / "boxes.json"
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][:1]
    path.write_text(json.dumps(content))
    names = "dataloader.train.dataset"
    cfg, changes = prepared("--config-file", "vfnet/vfnet_small.py", *own_data)
    assert f"{names}.filter_empty: True -> False (images without boxes are negatives)" in changes
    with caplog.at_level("INFO"):
        assert len(instantiate(cfg.dataloader.train.dataset)) == 4
    assert "4 images, 1 boxes in 1 images; 3 images without boxes (used as neg" in caplog.text
    asked = [*own_data, f"{names}.filter_empty=True"]
    cfg, _ = prepared("--config-file", "vfnet/vfnet_small.py", *asked)
    with caplog.at_level("INFO"):
        assert len(instantiate(cfg.dataloader.train.dataset)) == 1
    assert "3 images without boxes (left out by filter_empty=True)" in caplog.text


def test_training_without_validation_data_evaluates_nothing(toy, own_data, tmp_path, capsys):
    toy.config = str(tmp_path / "small.yaml")
    (tmp_path / "small.yaml").write_text(YAML)
    assert toy.run(*own_data[:4]) == 0
    assert not (toy.output_dir / "model_best.pth").exists()
    assert toy.run(*own_data[:4], "--overwrite", "train.val_loss.enabled=True") == 2
    assert "needs a test set: --val-json" in capsys.readouterr().err
    assert toy.run(*own_data[:4], "--overwrite", "train.early_stopping.patience=1") == 2
    assert "needs a test set" in capsys.readouterr().err
    assert toy.run(*own_data[:4], "--eval-only") == 2
    assert "needs --val-json and --val-images" in capsys.readouterr().err


def test_faulty_data_stops_before_training(own_data, tmp_path):
    path = tmp_path / "boxes.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 77
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"boxes\.json.*"):
        prepared("--config-file", "vfnet/vfnet_r50_fpn_1x.py", *own_data)


def test_a_yaml_config_trains_on_own_data_and_resumes(toy, own_data, tmp_path):
    toy.config = str(tmp_path / "small.yaml")
    (tmp_path / "small.yaml").write_text(YAML)
    own_data = ["--num-gpus", "0", *own_data]  # whatever MODEL.DEVICE says
    assert toy.run(*own_data, "train.ema.enabled=True") == 0
    final = toy.load()
    assert final["iteration"] == 1
    assert final["class_names"] == ["cat", "dog"]
    assert final["model"]["head.cls_logits.weight"].shape[0] == 2
    rates = final["trainer"]["schedule"]["learning_rates"]
    assert sorted(rates) == pytest.approx([0.001, 0.001, 0.002])  # weights, norms, biases
    assert toy.run(*own_data, "--resume", "SOLVER.MAX_ITER", "3", "train.ema.enabled=True") == 0
    assert toy.load()["iteration"] == 2
    assert toy.run(*own_data, "--eval-only") == 0
    assert (toy.output_dir / "inference").is_dir()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.MAX_ITR=3"], r"SOLVER\.MAX_ITR\. Did you mean SOLVER\.MAX_ITER"),
        (["SOLVER.MAX_ITER=abc"], r"SOLVER\.MAX_ITER=abc"),
        (["MODEL.VFNET.NUM_CLASES", "3"], r"Did you mean MODEL\.VFNET\.NUM_CLASSES"),
        (["SOLVER.CLIP_GRADIENTS.CLIP_TYPE=all"], "CLIP_TYPE=all"),
        (["train.max_itr=3"], r"Did you mean train\.max_iter"),
    ],
)
def test_mistakes_with_yaml(tmp_path, overrides, message):
    (tmp_path / "small.yaml").write_text(YAML)
    with pytest.raises(ConfigError, match=message):
        prepared("--config-file", str(tmp_path / "small.yaml"), *overrides)


def test_a_typo_in_a_yaml_file(tmp_path):
    (tmp_path / "small.yaml").write_text(YAML.replace("BASE_LR", "BASE_LRR"))
    with pytest.raises(ConfigError, match=r"small\.yaml.*BASE_LRR.*Did you mean SOLVER\.BASE_LR"):
        prepared("--config-file", str(tmp_path / "small.yaml"))


def test_yacs_values_become_components(tmp_path):
    (tmp_path / "small.yaml").write_text(YAML)
    options = ["SOLVER.CLIP_GRADIENTS.ENABLED=True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE=0.5"]
    cfg, changes = prepared("--config-file", str(tmp_path / "small.yaml"), *options, "--seed", "4")
    assert cfg.train.clip_grad.kind == "value"
    assert cfg.train.clip_grad.max_norm == 0.5
    assert cfg.train.seed == 4
    assert cfg.optimizer.lr == 0.001
    assert cfg.dataloader.test.mapper.image_format == "RGB"
    assert changes[0] == "SOLVER.CLIP_GRADIENTS.ENABLED: -> True"


@pytest.mark.parametrize(
    ("yacs", "own"),
    [("SOLVER.MAX_ITER=9", "train.max_iter=8"), ("OUTPUT_DIR=a", "train.output_dir=b")],
)
def test_a_setting_is_given_under_one_of_its_names(tmp_path, yacs, own):
    """The order on the command line would not decide which of them holds."""
    (tmp_path / "small.yaml").write_text(YAML)
    with pytest.raises(ConfigError, match="are the same setting: give one of them"):
        prepared("--config-file", str(tmp_path / "small.yaml"), own, yacs)


def test_an_evaluation_of_other_weights_leaves_a_run_alone(toy, tmp_path, capsys):
    assert toy.run("train.max_iter=2") == 0
    other = tmp_path / "other.pth"
    other.write_bytes((toy.output_dir / "model_final.pth").read_bytes())
    before = (toy.output_dir / "metrics.json").read_bytes()
    assert toy.run("--eval-only", f"train.init_checkpoint={other}") == 2
    assert "holds another run" in capsys.readouterr().err
    assert (toy.output_dir / "metrics.json").read_bytes() == before


def test_the_saved_config_runs_again_where_its_own_classes_are_allowed(toy, capsys):
    assert toy.run("train.max_iter=2", "optimizer.lr=0.05") == 0
    saved = toy.output_dir / "config.yaml"
    record = (toy.output_dir / "versions.txt").read_text()
    assert "torch " in record
    assert "optimizer.lr: 0.1 -> 0.05" in record
    first = toy.load()["model"]
    toy.config = str(saved)
    assert toy.run() == 2
    assert "--allow engine_toy." in capsys.readouterr().err
    assert toy.run("--overwrite", "--allow", "engine_toy") == 0
    again = toy.load()
    assert again["iteration"] == 1
    assert all((first[k] == v).all() for k, v in again["model"].items())


def test_model_and_data_must_agree(toy, own_data, tmp_path, capsys):
    toy.config = str(tmp_path / "small.yaml")
    (tmp_path / "small.yaml").write_text(YAML)
    assert toy.run(*own_data, "model.num_classes=5") == 2
    message = capsys.readouterr().err
    assert "model.num_classes=5, but data set" in message
    assert "has 2 classes (cat, dog)" in message


def test_pairs_of_the_yacs_tools():
    given = ["SOLVER.MAX_ITER", "3", "A.B=1", "train.seed=2", "MODEL.X", "-1"]
    assert joined_pairs(given) == ["SOLVER.MAX_ITER=3", "A.B=1", "train.seed=2", "MODEL.X=-1"]
    with pytest.raises(ConfigError, match="no value"):
        joined_pairs(["SOLVER.MAX_ITER"])


def test_a_config_without_all_sections_is_named(tmp_path):
    (tmp_path / "part.py").write_text("train = dict()\n")
    with pytest.raises(ConfigError, match=r"part\.py does not define model, optimizer"):
        prepared("--config-file", str(tmp_path / "part.py"))


@pytest.mark.parametrize(
    "override", ["train.clip_grad.max_norm=0", "train.clip_grad.norm_type=-1.0", "train.max_iter=0"]
)
def test_options_that_would_stop_all_learning_are_refused(override):
    """Clipped to 0, every gradient is 0: the run would end with the weights it began with."""
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError, match=rf"{key}={value}.*must be greater than 0"):
        prepared("--config-file", "vfnet/vfnet_r50_fpn_1x.py", override)
