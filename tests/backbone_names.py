"""How other projects name the tensors of the backbones here, given our names."""

import re

from torch import Tensor

PARTS = {
    "down": "base_layer",
    "bypass": "partial_transition1",
    "entry": "stage_layers.0.downsample",
    "exit": "partial_transition2",
    "fuse": "fuse_transition",
}


def yolof_authors_name(key: str) -> str:
    """``res2.blocks.1.conv1.norm.weight`` -> ``backbone.layer2.stage_layers.1.bn1.weight``."""
    if m := re.fullmatch(r"stem\.conv\.(norm\.)?(\w+)", key):
        return f"backbone.{'bn1' if m[1] else 'conv1'}.{m[2]}"
    if m := re.fullmatch(r"res(\d)\.blocks\.(\d)\.conv(\d)\.(norm\.)?(\w+)", key):
        kind = "bn" if m[4] else "conv"
        return f"backbone.layer{m[1]}.stage_layers.{m[2]}.{kind}{m[3]}.{m[5]}"
    m = re.fullmatch(r"res(\d)\.(\w+)\.(norm\.)?(\w+)", key)
    return f"backbone.layer{m[1]}.{PARTS[m[2]]}.{1 if m[3] else 0}.{m[4]}"


def caffe2_name(key: str) -> str:
    """``res2.0.conv1.norm.bias`` -> ``res2_0_branch2a_bn_b``."""
    kind = {
        "norm.weight": "bn_s",
        "norm.bias": "bn_b",
        "norm.running_mean": "bn_rm",
        "norm.running_var": "bn_riv",
        "weight": "w",
    }
    if m := re.fullmatch(r"stem\.conv1\.(.+)", key):
        return "backbone." + ("conv1_w" if m[1] == "weight" else f"res_conv1_{kind[m[1]]}")
    m = re.fullmatch(r"res(\d)\.(\d+)\.(\w+)\.(norm\.\w+|weight)", key)
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[m[3]]
    return f"backbone.res{m[1]}_{m[2]}_branch{branch}_{kind[m[4]]}"


def open_mmlab_res2net(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of MMDetection's Res2Net for a state dict of ours."""
    source = {}
    for key, tensor in ours.items():
        for i in range(3):
            key = key.replace(f"stem.conv{i + 1}.norm.", f"stem.{3 * i + 1}.")
            key = key.replace(f"stem.conv{i + 1}.", f"stem.{3 * i}.")
            key = key.replace(f".convs.{i}.norm.", f".bns.{i}.")
        for stage in (2, 3, 4, 5):
            key = key.replace(f"res{stage}.", f"layer{stage - 1}.")
        for conv in (1, 3):
            key = key.replace(f"conv{conv}.norm.", f"bn{conv}.")
        key = key.replace("shortcut.norm.", "downsample.2.").replace("shortcut.", "downsample.1.")
        source[key] = tensor
    return source


def torchvision_name(key: str) -> str:
    """``res3.0.conv1.norm.bias`` -> ``layer2.0.bn1.bias``."""
    for stage in (2, 3, 4, 5):
        key = key.replace(f"res{stage}.", f"layer{stage - 1}.")
    for conv in (1, 2, 3):
        key = key.replace(f"conv{conv}.norm.", f"bn{conv}.")
    key = key.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return key.removeprefix("stem.")
