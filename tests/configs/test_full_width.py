"""Every experiment at its full width: one training step and one inference on a small picture."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from tiny import empty_picture, picture
from torch import Tensor, nn
from vfnet_yolof.checkpoint import convert_checkpoint, convert_state_dict, load_into
from vfnet_yolof.config.packaged import config_names, load_config

LAZY = [name for name in config_names() if name.endswith(".py")]
SIZE = (64, 64)
# SSD has weights of their own on each level: a box of each level's size, and an image of its size.
SSD_SIZES = (20, 51, 133, 215, 296, 378, 460)


@cache
def same_model() -> dict[str, str]:
    """For each experiment the first whose model and optimizer are the same."""
    first: dict[str, str] = {}
    found = {}
    for name in LAZY:
        config = load_config(name)
        content = OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["model", "optimizer"]))
        found[name] = first.setdefault(content, name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", LAZY)
def test_trains_and_infers(name: str) -> None:
    """The step changes every trainable parameter and no other."""
    if (first := same_model()[name]) != name:
        pytest.skip(f"has the model and the optimizer of {first}")
    config = load_config(name)
    torch.manual_seed(0)
    model = instantiate(config.model)
    batch = [picture(seed=0), picture(boxes=[(2, 2, 62, 60)], classes=[1], seed=1)]
    size = SIZE
    if name.startswith("ssd/") or "_ssd512" in name:
        size = (512, 512)
        batch = [picture([(8, 8, 8 + x, 8 + x) for x in SSD_SIZES], size=size)]

    model.eval()
    with torch.no_grad():
        instances = [output["instances"] for output in model(batch)]
    for found in instances:
        assert found.image_size == size
        assert found.scores.isfinite().all()
        assert (found.pred_boxes.tensor >= 0).all()
        assert (found.pred_boxes.tensor <= size[0]).all()

    model.train()
    config.optimizer.params.model = model
    optimizer = instantiate(config.optimizer)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with EventStorage():
        loss = sum(model(batch).values())
    assert loss.isfinite()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e3, error_if_nonfinite=True)
    optimizer.step()
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key]) != parameter.requires_grad, key


# The detectors that the papers compare with, and names of the reference's tensors. Their other
# configs differ in losses, schedules and data alone, as tests/configs/test_peers.py has it.
PEERS = {
    "baselines/retinanet_mmdet_r50_fpn_1x": "retinanet_r50_fpn",
    "atss/atss_r50_fpn_1x": "atss_r50_fpn",
    "foveabox/foveabox_r50_fpn_1x": "fovea_r50_fpn",
    "reppoints/reppoints_r50_fpn_1x": "reppoints_r50_fpn",
    "ssd/ssd512_vgg16": "ssd512_vgg16",
    "ablations/vfnet_t3_vfl": None,  # its names are in tests/checkpoint/test_convert_raw_vfnet.py
}


def test_peers_stand_for_the_configs_of_their_tables() -> None:
    """But for losses, their models are those of tables 5 and 1b; SSD with QFL has a class less."""

    def content(name: str) -> str:
        model = OmegaConf.masked_copy(load_config(name), ["model"]).model
        for key in ("cls_loss", "box_loss", "min_quality_sum"):
            model.pop(key, None)
        if "ssd512" in name:
            for key in ("background", "prior_prob"):
                model.head.pop(key, None)
        return OmegaConf.to_yaml(model)

    known = {content(f"{name}.py") for name in PEERS} | {content("vfnet/vfnet_r50_fpn_1x.py")}
    tables = [
        n for n in config_names() if n.startswith(("ablations/vfnet_t5", "ablations/gfl_t1b"))
    ]
    assert len(tables) == 21
    assert [name for name in tables if content(name) not in known] == []


def step(model: nn.Module, config: DictConfig, batch: list[dict]) -> list[str]:
    """Train once; names of parameters that stay as they are, all of whose gradients are finite."""
    config.optimizer.params.model = model
    optimizer = instantiate(config.optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with EventStorage():
        loss = sum(model.train()(batch).values())
    assert loss.isfinite()
    loss.backward()
    parameters = dict(model.named_parameters())
    assert all(parameters[name].grad.isfinite().all() for name in before)
    optimizer.step()
    return [name for name, value in before.items() if torch.equal(parameters[name], value)]


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_trains_without_boxes_and_returns_from_a_file(
    name: str, golden: Path, tmp_path: Path
) -> None:
    config = load_config(f"{name}.py")
    torch.manual_seed(0)
    model = instantiate(config.model)
    size, small = (128, 128), (128, 128)
    boxes = [(8, 8, 8 + x, 8 + x) for x in (12, 40, 70, 100)]
    if name.startswith("ssd/"):
        size, small = (512, 512), (264, 272)
        boxes = [(8, 8, 8 + x, 8 + x) for x in SSD_SIZES]

    # An image without boxes beside one with some, then no box in the batch at all, from which a
    # bias of a box branch has nothing to learn.
    assert step(model, config, [picture(boxes, size=size), empty_picture(size)]) == []
    model.zero_grad()
    unchanged = step(model, config, [empty_picture(small), empty_picture(small, seed=2)])
    assert not [key for key in unchanged if "cls" in key or not key.endswith(".bias")]

    state = model.state_dict()
    file = tmp_path / "weights.pth"
    if (keys := PEERS[name]) is None:
        torch.save({"model": state}, file)
    else:
        torch.save({"state_dict": reference_names(model, golden / f"{keys}.keys.json")}, file)
    _, report = convert_checkpoint(file, tmp_path / "converted.pth", model)
    assert not report.added
    again = instantiate(config.model)
    load_into(again, tmp_path / "converted.pth")
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def reference_names(model: nn.Module, keys: Path) -> dict[str, Tensor]:
    """The model's values under the names of MMDetection."""
    shapes = json.loads(keys.read_text())
    source = {key: torch.zeros(shape) for key, shape in shapes.items()}
    _, report = convert_state_dict(source, model)
    state = model.state_dict()
    return source | {key: state[target] for key, target in report.renamed.items()}
