"""Detectron2's own tools/lazyconfig_train_net.py on our configs: its steps, one after the other."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.benchmark import DataLoaderBenchmark
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import (
    SimpleTrainer,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from omegaconf import DictConfig
from vfnet_yolof.config.packaged import find_config
from vfnet_yolof.data.shapes import generate_shapes

CONFIG = "vfnet/vfnet_small_shapes.py"
# A weight of each detector that the first steps change.
TRAINED = {
    CONFIG: "head.reg_conv.conv.weight",
    "yolof/yolof_small_shapes.py": "backbone.blocks.3.conv2.weight",
}


@pytest.fixture
def few_shapes(tmp_path: Path) -> Iterator[list[str]]:
    """Overrides that name a data set of six pictures for training and two for validation."""
    folder = generate_shapes(tmp_path / "shapes", num_train=6, num_val=2)
    names = {split: f"few_shapes_{split}" for split in ("train", "val")}
    for split, name in names.items():
        annotations = folder / "annotations" / f"instances_{split}.json"
        register_coco_instances(name, {}, str(annotations), str(folder / split))
    yield [
        f"dataloader.train.dataset.names={names['train']}",
        f"dataloader.test.dataset.names={names['val']}",
        "dataloader.train.total_batch_size=2",
    ]
    for name in names.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def _loggers() -> Iterator[None]:
    """default_setup cuts Detectron2's loggers off from the root one; put that back."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(x.propagate, x.level, list(x.handlers)) for x in loggers]
    yield
    for logger, (propagate, level, handlers) in zip(loggers, before, strict=True):
        logger.propagate, logger.handlers = propagate, handlers
        logger.setLevel(level)


def setup(tmp_path: Path, options: list[str], config: str = CONFIG) -> DictConfig:
    arguments = [
        "--config-file",
        find_config(config),
        "train.device=cpu",
        "train.max_iter=2",
        "train.eval_period=2",
        "train.log_period=1",
        f"train.output_dir={tmp_path / 'output'}",
        *options,
    ]
    args = default_argument_parser().parse_args(arguments)
    cfg = LazyConfig.load(args.config_file)
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    default_setup(cfg, args)
    return cfg


def evaluate(cfg: DictConfig, model: torch.nn.Module) -> dict:
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    print_csv_format(results)
    return results


@pytest.mark.usefixtures("_loggers")
@pytest.mark.parametrize("config", TRAINED)
def test_trains_evaluates_and_resumes(few_shapes: list[str], tmp_path: Path, config: str) -> None:
    cfg = setup(tmp_path, few_shapes, config)
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    before = {k: v.clone() for k, v in model.state_dict().items()}

    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.ddp)
    trainer = SimpleTrainer(model, loader, optimizer)
    checkpointer = DetectionCheckpointer(
        model, cfg.train.output_dir, optimizer=optimizer, trainer=trainer
    )
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, model)),
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter),
                period=cfg.train.log_period,
            ),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    trainer.train(0, cfg.train.max_iter)

    after = model.state_dict()
    assert all(x.isfinite().all() for x in after.values())
    assert not torch.equal(after[TRAINED[config]], before[TRAINED[config]])
    assert {"bbox/AP", "total_loss", "loss_cls", "num_pos", "lr"} <= set(trainer.storage.latest())
    written = {p.name for p in (tmp_path / "output").iterdir()}
    assert {"config.yaml", "metrics.json", "model_final.pth", "last_checkpoint"} <= written
    reloaded = LazyConfig.load(str(tmp_path / "output" / "config.yaml"))
    # Saved before the trainer put the model object into the configuration.
    assert reloaded.train == cfg.train
    assert reloaded.dataloader.train.dataset.names == "few_shapes_train"

    fresh = instantiate(cfg.model)
    resumed = DetectionCheckpointer(fresh, cfg.train.output_dir).resume_or_load("", resume=True)
    assert resumed["iteration"] == 1
    assert all(torch.equal(after[k], v) for k, v in fresh.state_dict().items())


@pytest.mark.usefixtures("_loggers")
def test_benchmark_of_the_data(few_shapes: list[str], tmp_path: Path, monkeypatch) -> None:
    """tools/benchmark.py --task data puts its own class in the place of our loader."""
    timed = []
    # The main branch prints percentiles with an argument that numpy 2.4 no longer has.
    monkeypatch.setattr(
        DataLoaderBenchmark, "_log_time", lambda self, msg, avg, *rest: timed.append((msg, avg))
    )
    cfg = setup(tmp_path, few_shapes)
    cfg.dataloader.train._target_ = DataLoaderBenchmark
    benchmark = instantiate(cfg.dataloader.train)
    benchmark.benchmark_mapper(4, warmup=1)
    benchmark.benchmark_distributed(4, warmup=1)
    assert len(timed) == 2
    assert all(0 < seconds < 60 for _, seconds in timed)
