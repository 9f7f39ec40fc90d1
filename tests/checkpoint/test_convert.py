"""MMDetection's VFNet becomes ours, completely, or is refused with what differs."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from golden_recipe import reference_state_dict
from mmdet_names import mmdet_vfnet
from torch import nn
from vfnet_yolof.checkpoint import (
    CheckpointError,
    CheckpointMismatchError,
    convert_checkpoint,
    convert_state_dict,
    describe,
    find_category_ids,
    find_class_names,
    find_weights,
)
from vfnet_yolof.checkpoint.convert import file_sha256, hash_in_name
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.utils.files import write_atomically


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.conv1.weight", "backbone.bottom_up.stem.conv1.weight"),
        ("backbone.bn1.running_var", "backbone.bottom_up.stem.conv1.norm.running_var"),
        ("backbone.layer1.0.downsample.0.weight", "backbone.bottom_up.res2.0.shortcut.weight"),
        ("backbone.layer2.0.downsample.1.bias", "backbone.bottom_up.res3.0.shortcut.norm.bias"),
        ("backbone.layer4.2.conv2.weight", "backbone.bottom_up.res5.2.conv2.weight"),
        (
            "backbone.layer4.2.conv2.conv_offset.bias",
            "backbone.bottom_up.res5.2.conv2.conv_offset.bias",
        ),
        ("backbone.layer3.5.bn3.weight", "backbone.bottom_up.res4.5.conv3.norm.weight"),
        ("neck.lateral_convs.0.conv.weight", "backbone.fpn_lateral3.weight"),
        ("neck.fpn_convs.2.conv.bias", "backbone.fpn_output5.bias"),
        ("neck.fpn_convs.3.conv.weight", "backbone.top_block.p6.weight"),
        ("neck.fpn_convs.4.conv.weight", "backbone.top_block.p7.weight"),
        (
            "bbox_head.cls_convs.2.conv.conv_offset.weight",
            "head.cls_tower.2.conv.conv_offset.weight",
        ),
        ("bbox_head.reg_convs.1.gn.bias", "head.reg_tower.1.norm.bias"),
        ("bbox_head.vfnet_reg_conv.gn.weight", "head.reg_conv.norm.weight"),
        ("bbox_head.vfnet_reg.weight", "head.reg_init.weight"),
        ("bbox_head.scales.4.scale", "head.scales_init.4.scale"),
        ("bbox_head.vfnet_reg_refine_dconv.weight", "head.reg_star.weight"),
        ("bbox_head.vfnet_reg_refine.bias", "head.reg_refine.bias"),
        ("bbox_head.scales_refine.0.scale", "head.scales_refine.0.scale"),
        ("bbox_head.vfnet_cls_dconv.weight", "head.cls_star.weight"),
        ("bbox_head.vfnet_cls.bias", "head.cls_logits.bias"),
    ],
)
def test_names(theirs: str, ours: str):
    source = mmdet_vfnet(dcn_stages=(2, 3, 4), head_dcn=True)
    converted, report = convert_state_dict(source)
    assert report.renamed[theirs] == ours
    assert converted[ours] is source[theirs]
    assert len(converted) == len(source) == report.num_source


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "VFNet R-50-FPN, 3 convolutions per tower, 80 classes"),
        (
            {"blocks": (3, 4, 23, 3), "dcn_stages": (2, 3, 4), "head_dcn": True},
            "VFNet R-101-FPN with DCNv2 in res3 to res5, DCNv2 in the head, "
            "3 convolutions per tower, 80 classes",
        ),
        (
            {"blocks": (3, 4, 23, 3), "groups": 32, "num_convs": 4, "num_classes": 3},
            "VFNet X-101-32x4d-FPN, 4 convolutions per tower, 3 classes",
        ),
        (
            {"dcn_stages": (4,), "offset_channels": 18},
            "VFNet R-50-FPN with DCNv1 in res5, 3 convolutions per tower, 80 classes",
        ),
    ],
)
def test_what_a_checkpoint_looks_like(options: dict, text: str):
    _, report = convert_state_dict(mmdet_vfnet(**options))
    assert report.description == text


def wrapped(kind: str, state: dict[str, torch.Tensor]) -> dict:
    prefixed = {f"module.{key}": value for key, value in state.items()}
    wrong = {key: torch.full_like(value, -1) for key, value in state.items()}
    return {
        "plain": state,
        "state_dict": {"state_dict": state, "optimizer": {"lr": 0.1}, "meta": {}},
        "model": {"model": state, "iteration": 7},
        "averaged": {"model": wrong, "ema": state},
        "distributed": {"state_dict": prefixed},
        "compiled": {"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
        # mmengine swaps before saving: the averaged weights are in state_dict
        "mmengine EMA": {
            "state_dict": state,
            "ema_state_dict": {
                "steps": torch.tensor(9),
                **{f"module.{k}": -v for k, v in state.items()},
            },
        },
        "mmengine EMA only": {"ema_state_dict": {"steps": torch.tensor(9), **prefixed}},
        "mmcv EMA": {
            "state_dict": {**state, **{"ema_" + k.replace(".", "_"): v for k, v in wrong.items()}}
        },
        "preprocessor": {"state_dict": {**state, "data_preprocessor.mean": torch.zeros(3, 1, 1)}},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "state_dict",
        "model",
        "averaged",
        "distributed",
        "compiled",
        "mmengine EMA",
        "mmengine EMA only",
        "mmcv EMA",
        "preprocessor",
    ],
)
def test_wrapped_weights(kind: str):
    state = mmdet_vfnet()
    expected, _ = convert_state_dict(state)
    converted, report = convert_state_dict(wrapped(kind, state), expected)
    assert list(converted) == list(expected)
    assert all(torch.equal(converted[key], expected[key]) for key in expected)
    assert not report.unmatched


def test_unknown_tensors_are_refused():
    state = mmdet_vfnet() | {"bbox_head.surprise.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors.*R-50.*bbox_head.surprise"):
        convert_state_dict(state)


def test_unknown_layouts_are_refused():
    with pytest.raises(CheckpointError, match="unknown checkpoint layout.*MMDetection VFNet.*fc.w"):
        convert_state_dict({"fc.w": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no model weights.*epoch"):
        find_weights({"epoch": 3})


def test_batch_counters_follow_the_model():
    source = mmdet_vfnet()
    everything, _ = convert_state_dict(source)
    frozen = re.compile(r"backbone\.bottom_up\.(stem|res2)\..*num_batches_tracked")
    target = {key: value for key, value in everything.items() if not frozen.fullmatch(key)}

    converted, report = convert_state_dict(source, target)
    assert converted.keys() == target.keys()
    assert set(report.dropped.values()) == {"batch counter of a norm that is frozen here"}
    assert len(report.dropped) == 1 + 3 * 3 + 1  # stem, three blocks of res2, their shortcut

    without = {k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}
    converted, report = convert_state_dict(without, target)
    assert converted.keys() == target.keys()
    assert converted["backbone.bottom_up.res3.0.conv1.norm.num_batches_tracked"] == 0
    assert len(report.added) == len(target) - len(without)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"blocks": (3, 4, 23, 3), "dcn_stages": (2, 3, 4)},
            r"(?s)checkpoint is VFNet R-101-FPN with DCNv2.*builds VFNet R-50-FPN, "
            r".*have no place in the model: backbone.bottom_up.res3.0.conv2.conv_offset",
        ),
        ({"num_convs": 2}, r"6 tensors are not in the checkpoint: head.cls_tower.2.conv.weight"),
        ({"num_classes": 3}, r"(?s)cls_logits.weight \(3, 8, 3, 3\) against \(80.*Only the number"),
    ],
    ids=["depth and DCN", "convolutions", "classes"],
)
def test_a_wrong_pair_is_refused(options: dict, message: str):
    target, _ = convert_state_dict(mmdet_vfnet())
    with pytest.raises(CheckpointMismatchError, match=message):
        convert_state_dict(mmdet_vfnet(**options), target)


def test_names_without_shapes_are_checked_too():
    source = mmdet_vfnet()
    names = list(convert_state_dict(source)[0])
    assert list(convert_state_dict(source, names)[0]) == names
    with pytest.raises(CheckpointMismatchError, match="1 tensors are not in the checkpoint: extra"):
        convert_state_dict(source, [*names, "extra"])


@pytest.mark.parametrize(
    ("checkpoint", "names"),
    [
        ({"class_names": ["a", "b"]}, ["a", "b"]),
        ({"meta": {"CLASSES": ("a", "b")}}, ["a", "b"]),
        ({"meta": {"dataset_meta": {"classes": ("a",)}}}, ["a"]),
        ({"meta": {"dataset_meta": {"CLASSES": ["a"]}}}, ["a"]),
        ({"meta": {"CLASSES": "balloon"}}, ["balloon"]),
        ({"meta": {"epoch": 3}}, None),
        ({"meta": "text"}, None),
        ({"class_names": []}, None),
    ],
)
def test_class_names(checkpoint: dict, names: list[str] | None):
    assert find_class_names(checkpoint) == names


@pytest.mark.parametrize(
    ("ids", "found"), [([3, 9], [3, 9]), ([3], None), (None, None), ("39", None), ([], None)]
)
def test_category_ids_are_as_many_as_the_names(ids: object, found: list[int] | None):
    assert find_category_ids({"class_names": ["a", "b"], "category_ids": ids}) == found
    assert find_category_ids({"category_ids": ids}) is None


class Tiny(nn.Module):
    """Not a detector, but it has the names that the Detectron2-style layout asks for."""

    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(3, num_classes)


def test_convert_file(tmp_path: Path, caplog):
    source, output = tmp_path / "tiny.pth", tmp_path / "new" / "out.pth"
    state = {"head.weight": torch.ones(2, 3), "head.bias": torch.zeros(2)}
    names = {"class_names": ["cat", "dog"], "category_ids": [3, 9]}
    torch.save({"model": state, **names, "optimizer": {}}, source)
    model = Tiny()

    result, report = convert_checkpoint(source, output, model)

    assert report.num_source == 2
    written = torch.load(output, weights_only=True)
    assert written.keys() == {"model", "source", *names} == result.keys()
    assert {key: written[key] for key in names} == names
    assert written["source"]["file"] == "tiny.pth"
    assert written["source"]["sha256"] == file_sha256(source)
    with caplog.at_level("WARNING"):
        DetectionCheckpointer(model).load(str(output))
    assert not caplog.text  # it warns of anything missing or left over
    assert torch.equal(model.head.weight, torch.ones(2, 3))


def test_class_names_must_fit_the_model(tmp_path: Path):
    source, output = tmp_path / "tiny.pth", tmp_path / "out.pth"
    state = {"head.weight": torch.ones(2, 3), "head.bias": torch.zeros(2)}
    torch.save({"model": state, "class_names": ["cat"]}, source)
    with pytest.raises(CheckpointMismatchError, match=r"tiny.pth: names 1 classes \(cat\)"):
        convert_checkpoint(source, output, Tiny())
    assert not output.exists()


def test_writing_is_all_or_nothing(tmp_path: Path):
    output = tmp_path / "out.pth"
    write_atomically(output, lambda file: torch.save({"model": {}}, file))
    before = output.read_bytes()
    with pytest.raises(AttributeError):
        write_atomically(output, lambda file: torch.save({"model": lambda: None}, file))
    assert output.read_bytes() == before
    assert list(tmp_path.iterdir()) == [output]


def test_hash_in_a_published_name():
    assert hash_in_name("a/vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth") == "38db6f58"
    assert hash_in_name("vfnet_final.pth") is None


@pytest.fixture(scope="module")
def r50():
    return instantiate(load_config("vfnet/vfnet_r50_fpn_1x.py").model)


@pytest.mark.golden
def test_reference_names_fill_our_model(golden: Path, r50: nn.Module, tmp_path: Path, caplog):
    source = reference_state_dict(golden, "vfnet_r50_fpn", "mmdet_models")
    path, output = tmp_path / "theirs.pth", tmp_path / "ours.pth"
    torch.save({"state_dict": source, "meta": {}}, path)
    result, report = convert_checkpoint(path, output, r50)

    assert result["model"].keys() == r50.state_dict().keys()
    assert len(report.renamed) + len(report.dropped) == len(source)
    # Detectron2's frozen norms have no batch counter in release 0.6, and one on its main branch.
    counters = [
        sum(k.endswith("num_batches_tracked") for k in x) for x in (source, result["model"])
    ]
    assert len(report.dropped) == counters[0] - counters[1]
    assert set(report.dropped.values()) <= {"batch counter of a norm that is frozen here"}
    assert report.description == str(describe({k: v.shape for k, v in r50.state_dict().items()}))
    with caplog.at_level("WARNING"):
        DetectionCheckpointer(r50).load(str(output))
    assert not caplog.text
    loaded = r50.state_dict()
    for before, name in report.renamed.items():
        assert torch.equal(loaded[name], source[before]), before


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        (
            {"blocks": (3, 4, 23, 3), "dcn_stages": (2, 3, 4), "head_dcn": True},
            ["depth=101", "deform_stages=[3,4,5]", "head.dcn_on_last_conv=true"],
        ),
        (
            {"dcn_stages": (3, 4), "offset_channels": 18},
            ["deform_stages=[4,5]", "deform_version=1"],
        ),
        (
            {"blocks": (3, 4, 23, 3), "groups": 32},
            ["depth=101", "num_groups=32", "width_per_group=4"],
        ),
    ],
    ids=["R-101-DCNv2", "R-50-DCNv1", "X-101-32x4d"],
)
def test_names_of_other_backbones(options: dict, overrides: list[str]):
    prefix = {True: "model.", False: "model.backbone.bottom_up."}
    overrides = [prefix[o.startswith("head.")] + o for o in overrides]
    config = read_inference_config("vfnet/vfnet_r50_fpn_1x.py", overrides)
    with torch.device("meta"):
        model = config.build_model()
    _, report = convert_state_dict(mmdet_vfnet(**options), model.state_dict().keys())
    ours = str(describe({k: v.shape for k, v in model.state_dict().items()}))
    assert report.description == ours


def test_r101_weights_do_not_fit_r50(r50: nn.Module):
    source = mmdet_vfnet((3, 4, 23, 3), dcn_stages=(2, 3, 4), head_dcn=True)
    message = r"(?s)checkpoint is VFNet R-101-FPN with DCNv2.*configuration builds VFNet R-50-FPN,"
    with pytest.raises(CheckpointMismatchError, match=message):
        convert_state_dict(source, r50)
