"""Every experiment at its full width: one training step and one inference on a small picture."""

from functools import cache

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from tiny import picture
from vfnet_yolof.config.packaged import config_names, load_config

SIZE = (64, 64)
# SSD has weights of their own on each level: a box of each level's size, and an image of its size.
SSD_SIZES = (20, 51, 133, 215, 296, 378, 460)


@cache
def groups() -> dict[str, list[str]]:
    """Experiments whose model and optimizer are the same, by the first of them."""
    found: dict[str, list[str]] = {}
    for name in config_names():
        if name.endswith(".py"):
            config = load_config(name)
            content = OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["model", "optimizer"]))
            found.setdefault(content, []).append(name)
    return {names[0]: names for names in found.values()}


def test_groups_cover_every_experiment() -> None:
    members = [name for names in groups().values() for name in names]
    assert sorted(members) == [name for name in config_names() if name.endswith(".py")]
    assert "vfnet/vfnet_r50_fpn_ms_2x.py" not in groups()  # the same model as 1x


@pytest.mark.slow
@pytest.mark.parametrize("name", groups())
def test_trains_and_infers(name: str) -> None:
    """The step changes every trainable parameter and no other."""
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
