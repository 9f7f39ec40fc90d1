"""The yacs config builds, through Detectron2's registry, what the lazy one builds."""

import operator
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from vfnet_yolof.config.packaged import find_config, load_config
from vfnet_yolof.config.yacs import components
from vfnet_yolof.data import RandomShift
from vfnet_yolof.layers.soft_nms import SoftNMS
from vfnet_yolof.modeling.assigners import FCOSAssigner
from vfnet_yolof.modeling.losses import FocalLoss
from vfnet_yolof.modeling.yacs import (
    add_gfl_config,
    add_vfnet_config,
    add_yolof_config,
    get_cfg_with_keys,
)

VFNET, GFL = "vfnet/vfnet_r50_fpn_1x", "gfl/gfl_r50_fpn_1x"
YOLOF = "yolof/yolof_r50_c5_1x"
# Of each config: what the model, and what its head, is made of.
PARTS = {
    VFNET: (
        ("points", "assigner", "cls_loss", "postprocessor"),
        ("box_init_weight", "box_weight", "num_classes", "input_format", "min_positives"),
        ("strides", "reg_denom", "star_offsets.gradient_mul", "refine"),
    ),
    GFL: (
        (
            *("points", "assigner", "cls_loss", "postprocessor"),
            *("cls_quality", "box_quality", "representation"),
        ),
        (
            *("box_weight", "dfl_weight", "num_classes", "input_format", "min_positives"),
            "quality",
        ),
        ("strides", "quality"),
    ),
    YOLOF: (
        ("assigner", "box_coder", "cls_loss", "box_loss", "postprocessor"),
        ("box_weight", "num_classes", "input_format"),
        ("num_anchors",),
    ),
}


def yacs_config(*options: Any, name: str = VFNET) -> CfgNode:
    cfg = get_cfg_with_keys()
    cfg.merge_from_file(find_config(name + ".yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    return cfg


def small(*options: Any, name: str = VFNET) -> torch.nn.Module:
    """The yacs model with ResNet-18, quickly built."""
    shallow = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
    return build_model(yacs_config(*shallow, *options, name=name))


def options_of(part: Any) -> dict[str, Any]:
    """Public attributes of a part that is no module, down to the numbers."""
    return {
        k: options_of(v) if hasattr(v, "__dict__") else v
        for k, v in vars(part).items()
        if not k.startswith("_")
    } | {"": type(part)}


@pytest.mark.parametrize("name", PARTS)
def test_is_the_model_of_the_lazy_config(name: str) -> None:
    lazy = instantiate(load_config(name + ".py").model)
    yacs = build_model(yacs_config(name=name))
    assert type(yacs) is type(lazy)
    assert repr(yacs) == repr(lazy)
    lazy_state, yacs_state = lazy.state_dict(), yacs.state_dict()
    assert {k: v.shape for k, v in yacs_state.items()} == {
        k: v.shape for k, v in lazy_state.items()
    }
    trained = {k for k, p in lazy.named_parameters() if p.requires_grad}
    assert {k for k, p in yacs.named_parameters() if p.requires_grad} == trained
    parts, of_the_model, of_the_head = PARTS[name]
    for part in parts:
        assert options_of(getattr(yacs, part)) == options_of(getattr(lazy, part)), part
    for option in of_the_model:
        assert getattr(yacs, option) == getattr(lazy, option), option
    for option in of_the_head:
        values = [operator.attrgetter(option)(model.head) for model in (yacs, lazy)]
        assert values[0] == values[1], option
    assert list(yacs.head_in_features) == list(lazy.head_in_features)
    assert torch.equal(yacs.pixel_mean, lazy.pixel_mean)
    assert torch.equal(yacs.pixel_std, lazy.pixel_std)
    bias = yacs.head.cls_logits.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))


def test_anchors_and_encoder_are_those_of_the_lazy_config() -> None:
    lazy = instantiate(load_config(YOLOF + ".py").model)
    yacs = build_model(yacs_config(name=YOLOF))
    features = [torch.empty(1, 1, 3, 4)]
    for model in (yacs, lazy):
        (anchors,) = model.anchor_generator(features)
        assert anchors.tensor[:5, 2].tolist() == [16, 32, 64, 128, 256]
        assert anchors.tensor.shape == (60, 4)
        assert model.backbone.output_shape() == lazy.backbone.output_shape()
        assert [x.conv2.dilation[0] for x in model.backbone.blocks] == [2, 4, 6, 8]
        assert all(x.shortcut for x in model.backbone.blocks)


@pytest.mark.parametrize(
    ("name", "add_keys"),
    [(VFNET, add_vfnet_config), (GFL, add_gfl_config), (YOLOF, add_yolof_config)],
)
def test_the_keys_of_one_detector_are_enough_for_its_file(name: str, add_keys: Any) -> None:
    cfg = get_cfg()
    add_keys(cfg)
    cfg.merge_from_file(find_config(name + ".yaml"))
    assert cfg.INPUT.FORMAT == yacs_config(name=name).INPUT.FORMAT


@pytest.mark.parametrize("name", PARTS)
def test_pictures_are_those_of_the_lazy_config(name: str) -> None:
    yacs, lazy = components(yacs_config(name=name)), load_config(name + ".py")
    for split in ("train", "test"):
        mappers = [instantiate(x.dataloader[split].mapper) for x in (yacs, lazy)]
        assert mappers[0].image_format == mappers[1].image_format
        assert mappers[0].interpolation == mappers[1].interpolation
        steps = [[type(a) for a in m.augmentations.augs] for m in mappers]
        assert steps[0] == steps[1]


@pytest.mark.parametrize("name", PARTS)
def test_recipe_is_that_of_the_lazy_config(name: str) -> None:
    cfg, lazy = yacs_config(name=name).SOLVER, load_config(name + ".py")
    assert (lazy.optimizer.lr, lazy.optimizer.momentum) == (cfg.BASE_LR, cfg.MOMENTUM)
    assert lazy.optimizer.weight_decay == cfg.WEIGHT_DECAY
    params = lazy.optimizer.params
    assert params.get("bias_lr_factor", 1.0) == cfg.BIAS_LR_FACTOR
    assert params.get("weight_decay_bias") == cfg.WEIGHT_DECAY_BIAS
    factors = params.get("lr_factors", {"backbone.bottom_up": 1.0})
    assert factors == {"backbone.bottom_up": cfg.BACKBONE_MULTIPLIER}
    if "weight_decay_norm" in params:
        assert params.weight_decay_norm == cfg.WEIGHT_DECAY_NORM
    assert lazy.train.reference_batch_size == cfg.REFERENCE_BATCH_SIZE
    assert lazy.dataloader.train.total_batch_size == cfg.IMS_PER_BATCH
    assert lazy.train.max_iter == cfg.MAX_ITER
    multiplier = instantiate(lazy.lr_multiplier)
    for step, factor in zip(cfg.STEPS, (0.1, 0.01), strict=True):
        assert multiplier((step - 1) / cfg.MAX_ITER) == pytest.approx(10 * factor)
        assert multiplier((step + 1) / cfg.MAX_ITER) == pytest.approx(factor)
    assert multiplier(0.0) == pytest.approx(cfg.WARMUP_FACTOR)
    end = cfg.WARMUP_ITERS / cfg.MAX_ITER
    assert multiplier(0.9 * end) < multiplier(end) == 1


@pytest.mark.parametrize(
    ("options", "part", "name", "value"),
    [
        (("NUM_CLASSES", 3), "head.cls_logits", "out_channels", 3),
        (("CLASS_AGNOSTIC_NMS", True), "postprocessor.nms", "class_agnostic", True),
        (("NMS_THRESH_TEST", 0.4), "postprocessor.nms", "iou_threshold", 0.4),
        (("CANDIDATES", "location"), "postprocessor", "candidates", "location"),
        (("TOPK_CANDIDATES_TEST", 7), "postprocessor", "topk_candidates", 7),
        (("SCORE_THRESH_TEST", 0.2), "postprocessor", "score_thresh", 0.2),
        (("ATSS_TOPK", 5), "assigner", "topk", 5),
        (("VFL_ALPHA", 0.5), "cls_loss", "alpha", 0.5),
        (("VFL_GAMMA", 1.0), "cls_loss", "gamma", 1.0),
        (("VFL_IOU_WEIGHTED", False), "cls_loss", "iou_weighted", False),
        (("VFL_PADDING_IS_NEGATIVE", False), "cls_loss", "padding_is_negative", False),
        (("POINT_OFFSET", 0.5), "points", "offset", 0.5),
        (("OCTAVE_BASE_SCALE", 4.0), "points", "octave_base_scale", 4.0),
        (("REFINE", False), "head", "refine", False),
        (("BOX_WEIGHT", 5.0), "", "box_weight", 5.0),
        (("BOX_INIT_WEIGHT", 5.0), "", "box_init_weight", 5.0),
        (("CONV_CHANNELS", 64), "head.cls_logits", "in_channels", 64),
    ],
)
def test_keys_reach_the_model(options, part: str, name: str, value: Any) -> None:
    key, setting = options
    node = small(f"MODEL.VFNET.{key}", setting)
    for attribute in filter(None, part.split(".")):
        node = getattr(node, attribute)
    assert getattr(node, name) == value


def test_soft_nms_by_keys() -> None:
    options = {
        "NMS_KIND": "soft_gaussian",
        "NMS_THRESH_TEST": 0.7,
        "SOFT_NMS_SIGMA": 0.3,
        "SOFT_NMS_MIN_SCORE": 0.01,
        "CLASS_AGNOSTIC_NMS": True,
    }
    pairs = [x for key, value in options.items() for x in (f"MODEL.VFNET.{key}", value)]
    nms = small(*pairs).postprocessor.nms
    assert options_of(nms) == options_of(SoftNMS("gaussian", 0.7, 0.3, 0.01, True))
    with pytest.raises(KeyError, match=r"MODEL\.VFNET\.NMS_KIND must be one of"):
        small("MODEL.VFNET.NMS_KIND", "soft")


@pytest.mark.parametrize(
    ("options", "part", "name", "value"),
    [
        (("NUM_CLASSES", 3), "head.cls_logits", "out_channels", 3),
        (("QFL_BETA", 1.0), "cls_loss", "beta", 1.0),
        (("REG_MAX", 8), "head.reg", "out_channels", 36),
        (("BIN_INTERVAL", 2.0), "representation", "interval", 2.0),
        (("DFL_WEIGHT", 0.5), "", "dfl_weight", 0.5),
        (("BOX_WEIGHT", 5.0), "", "box_weight", 5.0),
        (("ATSS_TOPK", 5), "assigner", "topk", 5),
    ],
)
def test_keys_of_gfl_reach_the_model(options, part: str, name: str, value: Any) -> None:
    key, setting = options
    node = small(f"MODEL.GFL.{key}", setting, name=GFL)
    for attribute in filter(None, part.split(".")):
        node = getattr(node, attribute)
    assert getattr(node, name) == value


@pytest.mark.parametrize(
    ("options", "part", "name", "value"),
    [
        (("NUM_CLASSES", 3), "head.cls_logits", "out_channels", 15),
        (("BOX_WEIGHT", 5.0), "", "box_weight", 5.0),
        (("CLIP", "before_nms"), "postprocessor", "clip", "before_nms"),
        (("NMS_THRESH_TEST", 0.4), "postprocessor.nms", "iou_threshold", 0.4),
        (("CENTER_CLAMP", 16.0), "box_coder", "center_clamp", 16.0),
        (("CENTER_CLAMP", 0.0), "box_coder", "center_clamp", None),
        (("FOCAL_ALPHA", 0.5), "cls_loss", "alpha", 0.5),
        (("FOCAL_GAMMA", 1.0), "cls_loss", "gamma", 1.0),
        (("MATCHER.TOPK", 8), "assigner", "topk", 8),
        (("MATCHER.MIN_IOU", 0.1), "assigner", "min_iou", 0.1),
        (("MATCHER.MAX_IOU", 0.8), "assigner", "max_iou", 0.8),
        (("ENCODER.CHANNELS", 32), "backbone.lateral", "out_channels", 32),
        (("ENCODER.MID_CHANNELS", 8), "backbone.blocks.0.conv1", "out_channels", 8),
        (("ENCODER.DILATIONS", [3]), "backbone.blocks.0.conv2", "dilation", (3, 3)),
        (("ENCODER.SHORTCUT", False), "backbone.blocks.0", "shortcut", False),
        (("ENCODER.NORM", ""), "backbone.lateral", "norm", None),
        (("DECODER.CONV_CHANNELS", 8), "head.deltas", "in_channels", 8),
        (("DECODER.IMPLICIT_OBJECTNESS", False), "head", "objectness", None),
        (("DECODER.NORM", ""), "head.cls_tower.0", "norm", None),
    ],
)
def test_keys_of_yolof_reach_the_model(options, part: str, name: str, value: Any) -> None:
    key, setting = options
    pairs = ("MODEL.YOLOF.ENCODER.CHANNELS", 16, "MODEL.YOLOF.DECODER.CONV_CHANNELS", 16)
    stride = ("MODEL.RESNETS.STRIDE_IN_1X1", False)
    node = small(*pairs, *stride, f"MODEL.YOLOF.{key}", setting, name=YOLOF)
    for attribute in filter(None, part.split(".")):
        node = getattr(node, attribute)
    assert getattr(node, name) == value


def test_towers_and_activations_of_yolof() -> None:
    node = "MODEL.YOLOF."
    model = small(
        *("MODEL.RESNETS.STRIDE_IN_1X1", False, f"{node}ENCODER.CHANNELS", 16),
        *(f"{node}DECODER.CONV_CHANNELS", 16, f"{node}DECODER.ACTIVATION", "LeakyReLU"),
        *(f"{node}DECODER.NUM_CLS_CONVS", 1, f"{node}DECODER.NUM_REG_CONVS", 3),
        *(f"{node}ENCODER.ACTIVATION", "LeakyReLU"),
        name=YOLOF,
    )
    assert (len(model.head.cls_tower), len(model.head.reg_tower)) == (1, 3)
    leaky = [m for m in model.modules() if isinstance(m, torch.nn.LeakyReLU)]
    assert len(leaky) == 1 + 3 + 4 * 3
    assert {m.negative_slope for m in leaky} == {0.1}


def test_dc5_by_keys() -> None:
    """One more anchor, half the stride."""
    cfg = yacs_config(
        *("MODEL.RESNETS.RES5_DILATION", 2),
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[16, 32, 64, 128, 256, 512]]),
        name=YOLOF,
    )
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.backbone.output_shape()["encoded"].stride == 16
    assert model.anchor_generator.strides == [16]
    assert model.head.num_anchors == 6


def test_recipe_of_yolof_in_the_engine() -> None:
    """The parts of the recipe that Detectron2's own trainer has no keys for."""
    config = components(yacs_config(name=YOLOF))
    assert config.optimizer.params.lr_factors == {"backbone.bottom_up": 0.334}
    shift = instantiate(config.dataloader.train.mapper.augmentations[-1])
    assert isinstance(shift, RandomShift)
    assert (shift.max_shift, shift.prob) == (32, 0.5)
    config = components(yacs_config(name=VFNET))
    assert config.optimizer.params.lr_factors == {}
    assert len(config.dataloader.train.mapper.augmentations) == 2


def test_choices_by_name() -> None:
    model = small("MODEL.VFNET.ASSIGNER", "FCOS", "MODEL.VFNET.CLS_LOSS", "FL")
    assert isinstance(model.assigner, FCOSAssigner)
    assert isinstance(model.cls_loss, FocalLoss)
    with pytest.raises(KeyError, match="MODEL.VFNET.ASSIGNER must be one of .*got 'SimOTA'"):
        small("MODEL.VFNET.ASSIGNER", "SimOTA")
    with pytest.raises(KeyError, match="MODEL.VFNET.CLS_LOSS must be one of .*got 'GHM'"):
        small("MODEL.VFNET.CLS_LOSS", "GHM")


@pytest.mark.parametrize(
    ("name", "key", "lazy"),
    [
        (VFNET, "VFNET", "ablations/vfnet_fcos_regions.py"),
        (GFL, "GFL", "ablations/gfl_t1a_fcos_joint.py"),
    ],
)
def test_fcos_means_the_same_by_key_and_by_config(name: str, key: str, lazy: str) -> None:
    """Points in the middle of the cells, and centre sampling with radius 1.5."""
    model = small(f"MODEL.{key}.ASSIGNER", "FCOS", name=name)
    config = load_config(lazy).model
    assert options_of(model.assigner) == options_of(instantiate(config.assigner))
    assert options_of(model.points) == options_of(instantiate(config.points))
    assert (model.points.offset, model.assigner.center_radius) == (0.5, 1.5)


def test_points_can_lie_elsewhere() -> None:
    key = "MODEL.VFNET.POINT_OFFSET"
    assert small("MODEL.VFNET.ASSIGNER", "FCOS", key, 0.0).points.offset == 0.0
    assert small(key, None).points.offset == 0.0


def test_atss_by_keys_is_that_of_the_lazy_config() -> None:
    lazy = load_config("ablations/vfnet_t3_fcos_atss.py").model
    with torch.device("meta"):
        lazy = instantiate(lazy)
    model = small("MODEL.META_ARCHITECTURE", "ATSS")
    for part in (*PARTS[GFL][0], "quality"):
        assert options_of(getattr(model, part)) == options_of(getattr(lazy, part)), part
    for option in (
        "box_weight",
        "quality_weight",
        "min_quality_sum",
        "dfl_weight",
        "min_positives",
    ):
        assert getattr(model, option) == getattr(lazy, option), option
    least = ("MODEL.ATSS.MIN_CENTERNESS_SUM", 1.0)
    assert small("MODEL.META_ARCHITECTURE", "ATSS", *least).min_quality_sum == 1.0


def test_atss_is_in_the_registry_too() -> None:
    model = small("MODEL.META_ARCHITECTURE", "ATSS", "MODEL.ATSS.CENTERNESS_WEIGHT", 0.5)
    assert type(model).__name__ == "GFL"
    assert model.head.quality is not None
    assert len(model.head.cls_tower) == 4
    assert model.quality_weight == 0.5


def test_deformable_stages_by_key() -> None:
    on = "MODEL.RESNETS.DEFORM_ON_PER_STAGE"
    cfg = yacs_config(on, [False, True, True, True], "MODEL.RESNETS.DEFORM_MODULATED", True)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    deformed = {k.split(".")[2] for k in model.state_dict() if "conv_offset" in k}
    assert deformed == {"res3", "res4", "res5"}


@pytest.mark.parametrize(
    ("name", "made"),
    [("ATSS", "GFL"), ("GFL", "GFL"), ("GFocal", "GFocal"), ("VFNet", "VFNet"), ("YOLOF", "YOLOF")],
)
def test_the_registry_takes_keywords_too(name: str, made: str) -> None:
    """With a config they are put in place of what its keys say."""
    file = YOLOF if name == "YOLOF" else VFNET
    cfg = yacs_config("MODEL.META_ARCHITECTURE", name, name=file)
    builder = META_ARCH_REGISTRY.get(name)
    with torch.device("meta"):
        model = builder(cfg, box_weight=7.0)
        arguments = builder.from_config(cfg)
    assert builder.__name__ == name
    assert (type(model).__name__, model.box_weight) == (made, 7.0)
    assert builder(**arguments).box_weight == arguments["box_weight"]


@pytest.mark.parametrize(
    ("name", "backbone", "lacks"),
    [
        ("VFNet", "", "MODEL.VFNET"),
        ("YOLOF", "", "MODEL.YOLOF"),
        ("VFNet", "build_vfnet_yolof_res2net_fpn_backbone", "MODEL.RES2NET"),
    ],
)
def test_a_config_without_our_keys_is_told_of_those_that_has_them(
    name: str, backbone: str, lacks: str
) -> None:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = name, "cpu"
    if backbone:
        add_vfnet_config(cfg)
        cfg.MODEL.BACKBONE.NAME = backbone
    with pytest.raises(ValueError, match=rf"no {lacks}: make it with .*get_cfg_with_keys\(\)"):
        build_model(cfg)
