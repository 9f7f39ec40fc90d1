"""The reference implementations whose numbers the golden tests compare with."""

import itertools
from dataclasses import dataclass

import pytest
from golden_recipe import Images

CASES = ("main", "img1_empty", "all_empty", "uneven")
LEVELS = ("P3", "P4", "P5", "P6", "P7")


@dataclass(frozen=True)
class Reference:
    """The reference implementations of a detector, and what it is called here."""

    config: str
    name: str  # of the file with the keys of its parameters
    rules: str  # by which its parameters are made, of ``recipe.json``
    numbers: dict[str, str]  # {source: file}; the first file has all numbers
    losses: dict[str, str]  # {name there: name here}
    maps: dict[str, str]  # {name of the head's output here: name there}
    # Values of the post-processor's ``candidates`` that give the detections of these numbers.
    candidates: tuple[str, ...] = ("pair", "location")
    levels: tuple[str, ...] = LEVELS
    images: Images = Images()


REFERENCES = {
    "vfnet": Reference(
        config="vfnet/vfnet_r50_fpn_1x.py",
        name="vfnet_r50_fpn",
        rules="mmdet_models",
        numbers={"mmdet3": "vfnet_r50_fpn.npz", "mmdet2": "vfnet_r50_fpn_mmdet2.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box_init", "loss_bbox_rf": "loss_box"},
        maps={
            "logits": "cls_logits",
            "ltrb_init": "bbox_pred_init",
            "sides": "bbox_pred_refine",
        },
    ),
    "gfl": Reference(
        config="gfl/gfl_r50_fpn_1x.py",
        name="gfl_r50_fpn",
        rules="mmdet_models",
        numbers={"mmdet3": "gfl_r50_fpn.npz", "mmdet2": "gfl_r50_fpn_mmdet2.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box", "loss_dfl": "loss_dfl"},
        maps={"logits": "cls_logits", "sides": "reg_dist_logits"},
    ),
    "yolof": Reference(
        config="yolof/yolof_r50_c5_1x.py",
        name="yolof_r50_c5",
        rules="yolof_models",
        numbers={"authors": "yolof_r50_c5.npz"},
        losses={"loss_cls": "loss_cls", "loss_box_reg": "loss_box"},
        maps={},  # theirs are in test_yolof.py
        candidates=("pair",),
    ),
    "retinanet": Reference(
        config="baselines/retinanet_mmdet_r50_fpn_1x.py",
        name="retinanet_r50_fpn",
        rules="peer_models",
        numbers={"fl": "retinanet_r50_fpn.npz", "qfl": "retinanet_qfl_r50_fpn.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box"},
        maps={"logits": "cls_logits", "deltas": "bbox_deltas"},
        candidates=("pair",),
        images=Images(boxes="retinanet_r50_fpn.npz"),
    ),
    "atss": Reference(
        config="atss/atss_r50_fpn_1x.py",
        name="atss_r50_fpn",
        rules="peer_models",
        numbers={"fl": "atss_r50_fpn.npz", "qfl": "atss_qfl_r50_fpn.npz"},
        losses={
            "loss_cls": "loss_cls",
            "loss_bbox": "loss_box",
            "loss_centerness": "loss_quality",
        },
        maps={"logits": "cls_logits", "sides": "bbox_deltas", "quality_logits": "centerness"},
        candidates=("pair",),
    ),
    "foveabox": Reference(
        config="foveabox/foveabox_r50_fpn_1x.py",
        name="fovea_r50_fpn",
        rules="peer_models",
        numbers={"fl": "fovea_r50_fpn.npz", "qfl": "fovea_qfl_r50_fpn.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box"},
        maps={"logits": "cls_logits", "sides": "bbox_pred"},
        candidates=("pair",),
    ),
    "reppoints": Reference(
        config="reppoints/reppoints_r50_fpn_1x.py",
        name="reppoints_r50_fpn",
        rules="peer_models",
        numbers={"fl": "reppoints_r50_fpn.npz", "qfl": "reppoints_qfl_r50_fpn.npz"},
        losses={
            "loss_cls": "loss_cls",
            "loss_pts_init": "loss_box_init",
            "loss_pts_refine": "loss_box",
        },
        maps={"logits": "cls_logits", "sides_init": "pts_init", "sides": "pts_refine"},
        candidates=("pair",),
    ),
    "ssd": Reference(
        config="ssd/ssd512_vgg16.py",
        name="ssd512_vgg16",
        rules="peer_models",
        numbers={"softmax": "ssd512_vgg16.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box"},
        maps={"logits": "cls_logits", "deltas": "bbox_deltas"},
        candidates=("pair",),
        levels=tuple(f"F{i}" for i in range(7)),
        images=Images(boxes="ssd512_vgg16.npz", size=(288, 320)),
    ),
}


def detectors(*names: str, **choices: str) -> pytest.MarkDecorator:
    """Run a test with the ``reference`` of each detector and count it as a golden test of that.

    Args:
        names: of detectors. choices: {argument of the test: field of :class:`Reference` whose
            values it takes in turn}.
    """
    params = [
        pytest.param(name, *chosen, marks=pytest.mark.golden(name), id="-".join((name, *chosen)))
        for name in names
        for chosen in itertools.product(*(getattr(REFERENCES[name], x) for x in choices.values()))
    ]
    return pytest.mark.parametrize(("reference", *choices), params, indirect=["reference"])
