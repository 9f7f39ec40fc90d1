"""Every packaged config loads, builds, survives saving, and differs from its base as it says."""

import ast
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from config_diff import ABSENT, changes, flat
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from tiny import picture, tiny_model
from torch import nn
from vfnet_yolof.config.options import TRAIN_DEFAULTS
from vfnet_yolof.config.packaged import config_dir, config_names, find_config, load_config
from vfnet_yolof.engine.swa import cycle_ends
from vfnet_yolof.modeling.assigners import FCOSAssigner
from vfnet_yolof.modeling.heads import GFLHead
from vfnet_yolof.modeling.losses import FocalLoss
from vfnet_yolof.modeling.meta_arch import GFL, CenternessTarget, IoUTarget
from vfnet_yolof.modeling.representations import DiracDelta

EXPERIMENTS = config_names()
LAZY = [name for name in EXPERIMENTS if name.endswith(".py")]
BASE = "vfnet/vfnet_r50_fpn_1x.py"


def build(config: DictConfig) -> nn.Module:
    with torch.device("meta"):
        return instantiate(config.model)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in model.state_dict().items()}


class Experiment(NamedTuple):
    name: str
    config: DictConfig
    model: nn.Module


@pytest.fixture(scope="module", params=LAZY)
def experiment(request: pytest.FixtureRequest) -> Experiment:
    """Loaded and built once for its tests, which leave it as it was."""
    config = load_config(request.param)
    return Experiment(request.param, config, build(config))


def test_loads_builds_saves_and_reloads(experiment: Experiment, tmp_path: Path) -> None:
    _, config, model = experiment
    assert model.num_classes == config.model.num_classes
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(config, path)
    assert not Path(path + ".pkl").exists()  # what is written where yaml cannot say everything
    reloaded = LazyConfig.load(path)
    assert flat(reloaded) == flat(config)
    assert shapes(build(reloaded)) == shapes(model)


def test_recipe_builds(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config, model = experiment
    monkeypatch.setitem(config.optimizer.params, "model", model)
    optimizer = instantiate(config.optimizer)
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    assert trained == {p for p in model.parameters() if p.requires_grad}
    scheduler = instantiate(config.lr_multiplier)
    if config.train.swa.enabled:
        swa = config.train.swa
        ends = cycle_ends(config.train.max_iter, swa.start, swa.cycles)
        for end in ends[:-1]:  # the rate starts anew where a part of the average is taken
            before, after = (scheduler(i / config.train.max_iter) for i in (end - 1, end))
            assert before <= 0.05 < 0.9 <= after
    else:
        warmup = scheduler(0.0)
        assert 0 < warmup < scheduler(0.5) == 1
        assert scheduler(0.999) == pytest.approx(0.01)
    for loader in (config.dataloader.train, config.dataloader.test):
        mapper = instantiate(loader.mapper)
        assert mapper.is_train == (loader is config.dataloader.train)


def test_the_number_of_classes_is_said_in_one_place(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(experiment.config.model, "num_classes", 7)
    model = build(experiment.config)
    heads = [m for k, m in model.named_modules() if k.endswith(("cls_logits", "cls_score"))]
    anchors = getattr(model.head, "num_anchors", 1)
    classes = 7 + getattr(model.head, "has_background", False)
    of_levels = anchors if isinstance(anchors, tuple) else (anchors,)
    assert [m.out_channels for m in heads] == [classes * n for n in of_levels]


def test_the_channel_order_is_said_in_one_place(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment.config
    monkeypatch.setitem(config.dataloader.train.mapper, "image_format", "BGR")
    assert config.dataloader.test.mapper.image_format == "BGR"
    if "input_format" in config.model:
        assert config.model.input_format == "BGR"


def test_no_two_experiments_have_one_name() -> None:
    names = [Path(name).stem for name in LAZY]
    assert len(set(names)) == len(names) > 10


def test_outputs_do_not_overwrite_each_other(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment's runs are numbered below its name, which no other experiment has."""
    config = experiment.config
    assert config.train.output_dir == TRAIN_DEFAULTS["output_dir"]
    monkeypatch.setitem(config.train, "output_dir", "/elsewhere")
    assert config.dataloader.evaluator.output_dir == "/elsewhere/inference"


ALL_FILES = sorted(
    p.relative_to(config_dir()).as_posix() for p in config_dir().rglob("*.py") if p.stat().st_size
)


@pytest.mark.parametrize("name", ALL_FILES)
def test_docstring_starts_with_a_sentence(name: str) -> None:
    tree = ast.parse((config_dir() / name).read_text())
    first = (ast.get_docstring(tree) or "").split("\n\n")[0]
    assert len(first.split()) >= 4, f"configs/{name} does not say what it is"
    assert first[0].isupper()
    assert first.rstrip().endswith((".", "``."))
    assert len(first) < 220


class TestFinding:
    @pytest.mark.parametrize(
        "name",
        [
            "vfnet/vfnet_r50_fpn_1x.py",
            "vfnet/vfnet_r50_fpn_1x",
            "configs/vfnet/vfnet_r50_fpn_1x.py",
            "./configs/vfnet/vfnet_r50_fpn_1x",
            "vfnet_r50_fpn_1x.py",
            "vfnet_r50_fpn_1x",
        ],
    )
    def test_by_name_from_any_folder(self, name: str, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert Path(find_config(name)).samefile(config_dir() / BASE)

    def test_a_file_of_the_users_comes_first(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        mine = tmp_path / "vfnet" / "vfnet_r50_fpn_1x.py"
        mine.parent.mkdir()
        mine.write_text("train = dict(max_iter=3)\n")
        assert load_config("vfnet/vfnet_r50_fpn_1x.py").train.max_iter == 3

    def test_an_error_names_the_nearest(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"'vfnet/vfnet_r50_fpn_2x.py' not found; did"):
            find_config("vfnet/vfnet_r50_fpn_2x.py")
        with pytest.raises(FileNotFoundError, match=r"vfnet/vfnet_small_shapes\.py"):
            find_config("vfnet_small_shape.py")

    def test_common_parts_are_no_experiments(self) -> None:
        assert BASE in EXPERIMENTS
        assert "vfnet/vfnet_r50_fpn_1x.yaml" in EXPERIMENTS
        assert not [name for name in EXPERIMENTS if name.startswith("common")]


def test_loading_twice_gives_independent_configs() -> None:
    load_config(BASE).model.cls_loss.alpha = 9.0
    assert load_config(BASE).model.cls_loss.alpha == 0.75


# Everything in which an ablation differs from its base, apart from its output folder.
FOCAL = {
    "model.cls_loss._target_": FocalLoss,
    "model.cls_loss.alpha": 0.25,
    "model.cls_loss.iou_weighted": ABSENT,
    "model.cls_loss.padding_is_negative": ABSENT,
}
RAW_HEAD = {
    "model.head._target_": GFLHead,
    "model.head.num_convs": 4,
    "model.head.representation._target_": DiracDelta,
    "model.head.representation.unit": 8.0,  # strides: 64 to 1024 pixels
    "model.head.quality": False,
}
CHANGES: dict[str, dict[str, Any]] = {
    "vfnet_t2_a050_g10": {"model.cls_loss.alpha": 0.5, "model.cls_loss.gamma": 1.0},
    "vfnet_t2_a075_g15": {"model.cls_loss.gamma": 1.5},
    "vfnet_t2_a075_g20": {},
    "vfnet_t2_a075_g20_no_q": {"model.cls_loss.iou_weighted": False},
    "vfnet_t2_a125_g25": {"model.cls_loss.alpha": 1.25, "model.cls_loss.gamma": 2.5},
    "vfnet_t2_a100_g30": {"model.cls_loss.alpha": 1.0, "model.cls_loss.gamma": 3.0},
    "vfnet_t3_fl": FOCAL | RAW_HEAD,
    "vfnet_t3_vfl": RAW_HEAD,
    "vfnet_t3_vfl_star": {"model.head.refine": False},
    "vfnet_t3_vfl_star_refine": {},
    "vfnet_t3_fcos_atss": {
        **FOCAL,
        **RAW_HEAD,
        "model._target_": GFL,
        "model.head.representation.unit": 1.0,
        "model.head.quality": True,
        "model.cls_quality._target_": IoUTarget,
        "model.box_quality._target_": CenternessTarget,
        "model.quality._target_": CenternessTarget,
        "model.dfl_weight": 0.0,
        "model.min_quality_sum": 1e-12,
        "model.box_init_weight": ABSENT,
    },
    "vfnet_fcos_regions": {
        "model.points.offset": 0.5,
        "model.assigner._target_": FCOSAssigner,
        "model.assigner.topk": ABSENT,
        "model.assigner.strides": "${..points.strides}",
        "model.assigner.center_radius": 1.5,
    },
}


def ablation(name: str) -> str:
    return f"ablations/{name}.py"


def test_every_ablation_is_described_here() -> None:
    found = {Path(name).stem for name in LAZY if name.startswith("ablations/vfnet_")}
    assert {name for name in found if not name.startswith("vfnet_t5_")} == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_changes_what_it_says_and_nothing_else(name: str) -> None:
    assert changes(BASE, ablation(name)) == CHANGES[name]


@pytest.fixture(scope="module")
def base_losses() -> dict[str, float]:
    return losses(tiny_model(BASE))


def losses(model: nn.Module) -> dict[str, float]:
    return {k: v.item() for k, v in model([picture()]).items()}


def changed(got: dict[str, float], base: dict[str, float]) -> set[str]:
    return {k for k in base if got[k] != base[k]}


@pytest.mark.parametrize("name", [k for k in CHANGES if k.startswith("vfnet_t2")])
def test_loss_ablations_change_the_classification_loss_only(name: str, base_losses) -> None:
    got = losses(tiny_model(ablation(name)))
    assert changed(got, base_losses) == ({"loss_cls"} if CHANGES[name] else set())


COMPONENTS = {
    "vfnet_t3_fl": set(),
    "vfnet_t3_vfl": set(),
    "vfnet_t3_vfl_star": {"cls_star"},
    "vfnet_t3_vfl_star_refine": {"cls_star", "reg_star", "reg_refine"},
    "vfnet_t3_fcos_atss": {"quality"},
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_ablations_have_the_parts_of_their_row(name: str) -> None:
    model = tiny_model(ablation(name))
    parts = {"cls_star", "reg_star", "reg_refine", "quality"}
    with_parameters = {
        k for k, m in model.head.named_children() if k in parts and list(m.parameters())
    }
    assert with_parameters == COMPONENTS[name]
    want = {"loss_cls", "loss_box"}
    want |= {"loss_box_init"} if "reg_refine" in COMPONENTS[name] else set()
    want |= {"loss_quality"} if "quality" in COMPONENTS[name] else set()
    assert set(losses(model)) == want


def test_focal_and_varifocal_rows_of_the_raw_head_differ() -> None:
    focal = losses(tiny_model(ablation("vfnet_t3_fl")))
    varifocal = losses(tiny_model(ablation("vfnet_t3_vfl")))
    assert changed(varifocal, focal) == {"loss_cls"}


def test_fcos_regions_change_the_assignment() -> None:
    def positives(name: str) -> torch.Tensor:
        model, batch = tiny_model(name), [picture()]
        sizes = [(-(-64 // s), -(-64 // s)) for s in model.points.strides]
        images = model.preprocess_image(batch)
        return model.assign(images, sizes, [x["instances"] for x in batch]).pos_idx

    atss, fcos = positives(BASE), positives(ablation("vfnet_fcos_regions"))
    assert atss.tolist() != fcos.tolist()
    assert min(len(atss), len(fcos)) > 0
