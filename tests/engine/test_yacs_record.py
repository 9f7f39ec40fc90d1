"""Beside a run's ``config.yaml``: the same as a yacs file, for tools that know nothing else."""

import numpy as np
import pytest
from detectron2.engine import DefaultPredictor
from vfnet_yolof import Predictor
from vfnet_yolof.cli.training import argument_parser, read_arguments
from vfnet_yolof.config.packaged import find_config
from vfnet_yolof.data.shapes import generate_shapes
from vfnet_yolof.engine.run_record import yacs_record
from vfnet_yolof.modeling.yacs import get_cfg_with_keys

SMALL = (
    *("MODEL.RESNETS.DEPTH=18", "MODEL.RESNETS.RES2_OUT_CHANNELS=16", "MODEL.FPN.OUT_CHANNELS=64"),
    "MODEL.RESNETS.STEM_OUT_CHANNELS=16",
    *("MODEL.VFNET.CONV_CHANNELS=64", "MODEL.VFNET.NUM_CONVS=1", "MODEL.VFNET.PRIOR_PROB=0.1"),
    *("MODEL.DEVICE=cpu", "INPUT.INTERPOLATION=pil", "DATALOADER.NUM_WORKERS=0"),
    *("INPUT.MIN_SIZE_TRAIN=(64,)", "INPUT.MIN_SIZE_TEST=64", "SOLVER.IMS_PER_BATCH=2"),
    *("SOLVER.MAX_ITER=2", "SOLVER.STEPS=(1,)", "SOLVER.WARMUP_ITERS=0"),
    *("SOLVER.REFERENCE_BATCH_SIZE=2", "SOLVER.BASE_LR=0.0001"),
)


def record(*arguments, config="vfnet/vfnet_r50_fpn_1x.yaml"):
    """Text of the file for these arguments of ``train_net.py``."""
    args = argument_parser().parse_intermixed_args(["--config-file", str(config), *arguments])
    return yacs_record(read_arguments(args).cfg)


def loaded(text):
    cfg = get_cfg_with_keys()
    cfg.merge_from_other_cfg(cfg.load_cfg(text))
    return cfg


def listed(text):
    """Settings in the comments at the top."""
    lines = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
    return dict(line.split(": ") for line in lines)


@pytest.mark.parametrize("name", ["vfnet/vfnet_r50_fpn_1x", "gfl/gfl_r50_fpn_1x"])
def test_nothing_but_the_weights_differs_from_the_packaged_config(name):
    packaged = get_cfg_with_keys()
    packaged.merge_from_file(find_config(f"{name}.yaml"))
    before = loaded(packaged.dump())
    text = record(config=f"{name}.yaml")
    after = loaded(text)
    assert after.MODEL.WEIGHTS.endswith("/output/model_final.pth")
    after.MODEL.WEIGHTS = before.MODEL.WEIGHTS
    assert after == before
    assert not listed(text)


def test_flags_and_overrides_arrive_under_their_yacs_keys(tmp_path):
    overrides = (
        "model.num_classes=6",
        "optimizer.lr=0.5",
        "dataloader.test.dataset.names=shapes_val",
    )
    sizes = ("dataloader.train.total_batch_size=32", "--auto-scale")
    text = record(*overrides, *sizes, f"train.output_dir={tmp_path}", "SOLVER.GAMMA=0.2")
    cfg = loaded(text)
    assert cfg.MODEL.VFNET.NUM_CLASSES == cfg.MODEL.ROI_HEADS.NUM_CLASSES == 6
    assert cfg.DATASETS.TEST == ("shapes_val",)
    assert str(tmp_path) == cfg.OUTPUT_DIR
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.IMS_PER_BATCH, solver.REFERENCE_BATCH_SIZE) == (0.5, 32, 32)
    assert (solver.MAX_ITER, solver.STEPS, solver.GAMMA) == (43980, (29320, 40315), 0.2)
    assert solver.WARMUP_ITERS == 250
    assert not listed(text)


def test_what_yacs_has_no_key_for_is_listed():
    text = record(
        *("train.ema.enabled=True", "train.accumulate=2", "dataloader.test.num_workers=3"),
        "lr_multiplier.scheduler.values=[1.0,0.5,0.25]",
    )
    assert listed(text) == {
        "train.ema.enabled": "True",
        "train.accumulate": "2",
        "dataloader.test.num_workers": "3",
        "lr_multiplier.scheduler.values": "[1.0, 0.5, 0.25]",
    }
    assert loaded(text).SOLVER.GAMMA == 0.1


@pytest.fixture
def _few_shapes(tmp_path, monkeypatch):
    """The registered shapes, drawn for this test alone."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from vfnet_yolof.data import datasets, shapes

    def forget():
        for split in shapes.NUM_IMAGES:
            DatasetCatalog.remove(f"shapes_{split}")
            MetadataCatalog.remove(f"shapes_{split}")

    with monkeypatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path))
        generate_shapes(shapes.default_folder(), num_train=4, num_val=2)
        forget()
        datasets.register_shapes()
    yield
    forget()
    datasets.register_shapes()


@pytest.mark.usefixtures("_few_shapes")
def test_a_yaml_run_can_be_used_by_the_default_predictor(toy):
    toy.config = "vfnet/vfnet_r50_fpn_1x.yaml"
    data = ["DATASETS.TRAIN=('shapes_train',)", "DATASETS.TEST=('shapes_val',)"]
    assert toy.run(*SMALL, *data, "MODEL.VFNET.NUM_CLASSES=6", "--num-gpus", "0") == 0
    path = toy.output_dir / "config_yacs.yaml"

    cfg = get_cfg_with_keys()
    cfg.merge_from_file(str(path))
    predictor = DefaultPredictor(cfg)
    bgr = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    theirs = predictor(bgr)["instances"]
    complete = Predictor(str(path), optimized=False, score_thresh=0.0)  # or it is refused
    ours = complete(bgr)
    assert len(theirs) == len(ours) > 0
    np.testing.assert_allclose(theirs.pred_boxes.tensor, ours.pred_boxes.tensor, atol=1e-3)
    assert predictor.metadata.thing_classes[0] == "disc"

    # A run of the saved config leaves the same file.
    text = path.read_text()
    path.unlink()
    toy.config = str(toy.output_dir / "config.yaml")
    assert toy.run("--overwrite") == 0
    assert path.read_text() == text


def test_a_run_of_another_kind_leaves_no_file_of_an_earlier_one(toy):
    toy.output_dir.mkdir()
    stale = toy.output_dir / "config_yacs.yaml"
    stale.write_text("MODEL: {}\n")
    assert toy.run("--overwrite", "train.max_iter=1") == 0
    assert not stale.exists()
