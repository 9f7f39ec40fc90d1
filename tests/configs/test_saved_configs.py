"""Configurations and weights that release 0.1 saved are read, and build the same detectors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from tiny import empty_picture, picture, shrink, shrink_yolof, tiny_atss, tiny_model
from vfnet_yolof.checkpoint import CheckpointError, convert_state_dict, load_checkpoint
from vfnet_yolof.checkpoint.convert import load_into
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.config.yaml_files import Trust
from vfnet_yolof.engine.fine_tune import load_for_fine_tuning

pytestmark = pytest.mark.filterwarnings("ignore:vfnet_yolof.* is now:FutureWarning")

FOLDER = Path(__file__).parents[1] / "data" / "saved_configs"
# What each of them is today.
SAVED = {
    "gfl_small_shapes": "gfl/gfl_small_shapes.py",
    "gfl_t1a_centerness_guided": "ablations/gfl_t1a_centerness_guided.py",
    "gfocal_r50_fpn_1x": "gfl/gfocal_r50_fpn_1x.py",
    "vfnet_small_shapes": "vfnet/vfnet_small_shapes.py",
    "vfnet_t3_fcos_atss": "ablations/vfnet_t3_fcos_atss.py",
    "vfnet_t3_vfl": "ablations/vfnet_t3_vfl.py",
    "yolof_small_shapes": "yolof/yolof_small_shapes.py",
}
BY_KEYS = {
    "vfnet_r50_fpn_1x_yacs": "vfnet/vfnet_r50_fpn_1x.py",
    "atss_by_keys_yacs": "ablations/vfnet_t3_fcos_atss.py",
}


def saved(name: str) -> DictConfig:
    return load_config(FOLDER / f"{name}.yaml")


def targets(node: Any) -> list[str]:
    """Every ``_target_`` in a plain mapping or list."""
    if isinstance(node, dict):
        here = [node["_target_"]] if "_target_" in node else []
        return here + [x for value in node.values() for x in targets(value)]
    return [x for value in node for x in targets(value)] if isinstance(node, list) else []


def test_every_file_is_described_here() -> None:
    assert {p.stem for p in FOLDER.glob("*.yaml")} == SAVED.keys() | BY_KEYS.keys()


@pytest.mark.parametrize("name", [*SAVED, *BY_KEYS])
def test_every_name_is_found_and_may_be_called(name: str) -> None:
    found = targets(OmegaConf.to_container(saved(name)))
    assert len(found) > 5
    assert all(callable(locate(x)) for x in found)
    assert [x for x in found if not Trust().allows(x)] == []


def test_all_names_that_release_0_1_allowed_are_found() -> None:
    """``targets.txt``: by the modules of then, and as configurations abbreviate them."""
    names = (FOLDER / "targets.txt").read_text().split()
    assert len(names) == 105
    assert [x for x in names if not Trust().allows(x)] == []
    assert all(callable(locate(x)) for x in names)


def build(config: DictConfig) -> torch.nn.Module:
    (shrink_yolof if "box_coder" in config.model else shrink)(config)
    torch.manual_seed(0)
    return instantiate(config.model)


@pytest.mark.parametrize("name", SAVED)
def test_builds_what_the_packaged_configuration_builds(name: str) -> None:
    """The same names, losses and detections."""
    before = build(saved(name))
    now = build(load_config(SAVED[name]))
    assert type(before) is type(now)
    assert before.state_dict().keys() == now.state_dict().keys()
    batch = [picture(), empty_picture((64, 96))]
    assert before(batch) == now(batch)
    for x, y in zip(before.eval()(batch), now.eval()(batch), strict=True):
        assert torch.equal(x["instances"].pred_boxes.tensor, y["instances"].pred_boxes.tensor)
        assert torch.equal(x["instances"].scores, y["instances"].scores)


@pytest.mark.parametrize("name", BY_KEYS)
def test_builds_what_its_keys_say(name: str) -> None:
    before = instantiate(saved(name).model)
    now = instantiate(load_config(BY_KEYS[name]).model)
    assert type(before) is type(now)
    assert {k: v.shape for k, v in before.state_dict().items()} == {
        k: v.shape for k, v in now.state_dict().items()
    }


@pytest.mark.parametrize("name", SAVED)
def test_the_rest_of_the_run_is_there_too(name: str) -> None:
    config, now = saved(name), load_config(SAVED[name])
    for section in ("optimizer", "lr_multiplier"):
        assert config[section].keys() == now[section].keys()
    assert config.dataloader.tta.sizes == now.dataloader.tta.sizes
    assert type(instantiate(config.lr_multiplier)) is type(instantiate(now.lr_multiplier))


class TestWeightsOfATSS:
    """Its branch was called ``head.centerness``."""

    @pytest.fixture
    def model(self) -> torch.nn.Module:
        return tiny_atss(seed=1)

    @pytest.fixture
    def old(self) -> dict[str, torch.Tensor]:
        state = tiny_atss(seed=2).state_dict()
        old = {k.replace("head.quality.", "head.centerness."): v for k, v in state.items()}
        assert old.keys() - state.keys() == {"head.centerness.weight", "head.centerness.bias"}
        return old

    def check(self, model: torch.nn.Module) -> None:
        want = tiny_atss(seed=2).state_dict()
        assert all(torch.equal(v, want[k]) for k, v in model.state_dict().items())

    def test_are_converted_whole(self, model, old) -> None:
        converted, report = convert_state_dict(old, model)
        assert report.renamed["head.centerness.weight"] == "head.quality.weight"
        assert report.num_source == len(old)
        assert not report.unmatched and not report.dropped
        model.load_state_dict(converted)
        self.check(model)

    @pytest.mark.parametrize("entry", ["model", "ema"])
    def test_are_read_from_files(self, model, old, entry: str, tmp_path: Path) -> None:
        path = tmp_path / "old.pth"
        torch.save({entry: old, "iteration": 3}, path)
        assert load_checkpoint(path)[entry].keys() == model.state_dict().keys()
        load_into(model, path)
        self.check(model)
        other = tiny_atss(seed=3)
        report = load_for_fine_tuning(other, str(path))
        assert not (report.missing or report.unexpected or report.mismatched)
        self.check(other)

    def test_under_both_names_are_refused(self, old, tmp_path: Path) -> None:
        torch.save({"model": old | {"head.quality.bias": torch.zeros(1)}}, tmp_path / "both.pth")
        with pytest.raises(CheckpointError, match=r"both\.pth: has 'head.centerness.bias' and"):
            load_checkpoint(tmp_path / "both.pth")


def test_raw_vfnet_begins_at_64_to_1024_pixels() -> None:
    model = tiny_model("ablations/vfnet_t3_vfl.py")
    raw = torch.zeros(1, 4)
    distances = [model.decode_sides(raw, stride)[0, 0].item() for stride in model.points.strides]
    assert distances == [64, 128, 256, 512, 1024]
