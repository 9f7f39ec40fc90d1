"""Checks of a converted detector against reference numbers, shared by all detectors' tests."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from golden_recipe import Images, batch
from torch import Tensor, nn
from vfnet_yolof.checkpoint.convert import convert_state_dict
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.losses import ClassificationLoss
from vfnet_yolof.modeling.meta_arch.base import feature_sizes

CASES = ("main", "img1_empty", "all_empty", "uneven")
LEVELS = ("P3", "P4", "P5", "P6", "P7")
UNITS = Path(__file__).parent / "data" / "units"


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


def converted_model(reference: Reference, source: dict[str, Tensor]) -> nn.Module:
    """The full model of the reference's config with the reference's weights, converted."""
    model = instantiate(load_config(reference.config).model)
    model.reference = reference
    converted, report = convert_state_dict(source, model)
    missing, unexpected = model.load_state_dict(converted, strict=False)
    assert not missing and not unexpected, (missing, unexpected, report)
    return model


def check_checkpointer(
    model: nn.Module, config_name: str, source: dict[str, Tensor], folder: Path
) -> None:
    """Detectron2's checkpointer reads what was converted, and nothing is left over."""
    converted, _ = convert_state_dict(source, model)
    path = str(folder / "converted.pth")
    torch.save({"model": converted}, path)
    fresh = instantiate(load_config(config_name).model)
    DetectionCheckpointer(fresh).load(path)
    loaded = fresh.state_dict()
    assert loaded.keys() == converted.keys()
    assert [name for name, x in loaded.items() if not torch.equal(x, converted[name])] == []


def inputs(model: nn.Module, golden: Path, case: str) -> list[dict]:
    """The images and boxes of a case, in the model's order of channels."""
    return batch(golden, case, rgb=model.input_format == "RGB", images=model.reference.images)


def train_with_running_statistics(model: nn.Module) -> None:
    """Training mode, but for the batch norms: how most of the reference numbers were made."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def check_input(model: nn.Module, golden: Path, numbers: dict[str, np.ndarray]) -> None:
    images = model.preprocess_image(inputs(model, golden, "main"))
    want = numbers["input_normalised/img0_row0_first16_per_channel"]
    np.testing.assert_allclose(images.tensor[0, :, 0, :16].numpy(), want, rtol=1e-5, atol=1e-6)


def check_features(model: nn.Module, golden: Path, numbers: dict[str, np.ndarray]) -> None:
    features = pyramid(model, golden)
    full = 0
    for level in model.reference.levels:
        got = features[level.lower()].double()
        key = f"neck/{level}"
        want = numbers[f"{key}/mean_absmean_sum_abssum"]
        np.testing.assert_allclose(got.abs().mean().item(), want[1], rtol=1e-4)
        if key in numbers or f"{key}/every_4th_channel" in numbers:
            check_map(got, numbers, key)
            full += 1
    assert full >= 3


@torch.no_grad()
def pyramid(model: nn.Module, golden: Path) -> dict[str, Tensor]:
    train_with_running_statistics(model)
    return model.backbone(model.preprocess_image(inputs(model, golden, "main")).tensor)


@torch.no_grad()
def predictions(model: nn.Module, golden: Path) -> Any:
    """What the head gives for case ``main`` in training mode."""
    features = pyramid(model, golden)
    return model.head([features[name] for name in model.head_in_features])


def check_assignment(
    model: nn.Module, golden: Path, numbers: dict[str, np.ndarray], case: str
) -> None:
    items = inputs(model, golden, case)
    images = model.preprocess_image(items)
    maps = [torch.empty(1, 1, -(-256 // s), -(-320 // s)) for s in model.points.strides]
    sizes = feature_sizes(maps)
    grid = model.points.grid(sizes, torch.device("cpu"))
    valid = model.valid_locations(images, sizes)
    matches = model.match(grid, [x["instances"] for x in items], valid)
    got = torch.stack([match.box_of_each() for match in matches])
    want = numbers[f"{case}/assigned_gt"]
    np.testing.assert_array_equal(got.numpy(), np.where(want == -2, -1, want))
    assert (want >= 0).any() == (case != "all_empty")
    assert (valid is None) == (case != "uneven")
    if valid is not None:
        np.testing.assert_array_equal(valid.numpy(), want != -2)


class RecordedAssigner:
    """An assigner that keeps what it answers, as the reference numbers have it.

    ``seen``: (R,) of each image, the box of each row, -1 background, -2 outside of the image's own
    padded size, -3 ignored. ``level_sizes``: of the last call.
    """

    def __init__(self, rule: Any) -> None:
        self.rule = rule
        self.seen: list[Tensor] = []
        self.level_sizes: list[int] = []

    def __call__(self, *args: Any, valid: Tensor | None = None, **options: Any) -> Any:
        match = self.rule(*args, valid=valid, **options)
        self.level_sizes = options["level_sizes"]
        ignored = match.ignored_anchors & (match.assigned < 0)
        rows = match.assigned.masked_fill(ignored, -3)
        self.seen.append(rows if valid is None else rows.masked_fill(~valid, -2))
        return match


class RecordedLoss(ClassificationLoss):
    """Keeps the rows and the quality of the positives."""

    def __call__(self, logits: Tensor, pos_idx: Tensor, _: Any, quality: Tensor, *__: Any) -> Any:
        self.rows, self.quality = pos_idx, quality
        return logits.sum()


def assigned(model: nn.Module, golden: Path, case: str) -> list[np.ndarray]:
    """:class:`RecordedAssigner`'s answers for all images (N, R), of each stage."""
    names = [x for x in ("init_assigner", "assigner") if hasattr(model, x)]
    rules = {name: getattr(model, name) for name in names}
    try:
        for name, rule in rules.items():
            setattr(model, name, RecordedAssigner(rule))
        training_losses(model, golden, case)
        return [torch.stack(getattr(model, name).seen).numpy() for name in names]
    finally:
        for name, rule in rules.items():
            setattr(model, name, rule)


def qualities(model: nn.Module, golden: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the classification loss is given, level by level, images in turn, row by row."""
    loss, assigner = RecordedLoss(), RecordedAssigner(model.assigner)
    monkeypatch.setattr(model, "cls_loss", loss)
    monkeypatch.setattr(model, "assigner", assigner)
    training_losses(model, golden, "main")
    number = sum(assigner.level_sizes)
    ends = torch.tensor(assigner.level_sizes).cumsum(0)
    level = torch.bucketize(loss.rows % number, ends, right=True)
    order = torch.argsort(level * 2 + loss.rows // number, stable=True)
    return loss.quality[order].numpy()


@torch.no_grad()
def training_losses(model: nn.Module, golden: Path, case: str) -> dict[str, float]:
    train_with_running_statistics(model)
    return {k: v.item() for k, v in model(inputs(model, golden, case)).items()}


def check_losses(
    losses: dict[str, float], numbers: dict[str, np.ndarray], case: str, names: dict[str, str]
) -> None:
    """``names`` gives each loss of the reference the name that it has here."""
    assert set(losses) == set(names.values())
    for theirs, ours in names.items():
        want = float(numbers[f"{case}/loss/{theirs}"])
        np.testing.assert_allclose(losses[ours], want, rtol=1e-4, err_msg=ours)


def check_gradients(
    model: nn.Module,
    source: dict[str, Tensor],
    golden: Path,
    numbers: dict[str, np.ndarray],
    at_least: int = 14,
) -> None:
    """Of every parameter that the reference numbers name, which are ``at_least`` so many."""
    train_with_running_statistics(model)
    by_theirs = gradients(model, source, golden)
    names = gradient_names(numbers, "grad")
    assert len(names) >= at_least
    for name in names:
        grad = by_theirs[name]
        want = float(numbers[f"grad/{name}/norm"])
        np.testing.assert_allclose(grad.norm().item(), want, rtol=1e-3, err_msg=name)
        first = numbers[f"grad/{name}/first16"]
        got = grad.flatten()[: len(first)].cpu().numpy()
        np.testing.assert_allclose(got, first, atol=2e-3 * want, err_msg=name)


def gradient_names(numbers: dict[str, np.ndarray], prefix: str) -> list[str]:
    return sorted({k.split("/")[1] for k in numbers if k.startswith(f"{prefix}/")})


def gradients(model: nn.Module, source: dict[str, Tensor], golden: Path) -> dict[str, Tensor]:
    """Of the sum of the losses of case ``main``, under the reference's names."""
    model.zero_grad()
    sum(model(inputs(model, golden, "main")).values()).backward()
    by_theirs = gradients_by_reference_name(model, source)
    model.zero_grad()
    return by_theirs


def gradients_by_reference_name(model: nn.Module, source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients under the reference's names: its tensors, numbered, go through the converter."""
    order = list(source)
    numbered = {
        k: torch.full_like(v, i, dtype=torch.float64) for i, (k, v) in enumerate(source.items())
    }
    converted, _ = convert_state_dict(numbered, model)
    reference_name = {k: order[int(v.flatten()[0])] for k, v in converted.items()}
    return {reference_name[k]: p.grad for k, p in model.named_parameters() if p.grad is not None}


@torch.no_grad()
def check_detections(
    model: nn.Module, golden: Path, numbers: dict[str, np.ndarray], case: str, candidates: str
) -> None:
    model.eval()
    model.postprocessor.candidates = candidates
    outputs = model(inputs(model, golden, case))
    model.postprocessor.candidates = "pair"
    for i, output in enumerate(outputs):
        got = output["instances"]
        scores = numbers[f"{case}/det/{i}/scores"]
        assert len(got) == len(scores) == model.postprocessor.max_detections
        np.testing.assert_allclose(got.scores.numpy(), scores, atol=1e-4)
        classes = numbers[f"{case}/det/{i}/labels"]
        np.testing.assert_array_equal(got.pred_classes.numpy(), classes)
        boxes = numbers[f"{case}/det/{i}/boxes"]
        np.testing.assert_allclose(got.pred_boxes.tensor.numpy(), boxes, atol=5e-3)


def check_map(got: Tensor, numbers: dict[str, np.ndarray], key: str) -> None:
    """Compare the map (N, C, H, W) with the whole reference, or with what is kept of a large one.

    Every n-th channel is kept as it is, and of all channels the mean of each location over the
    channels and of each channel over the locations, or of each channel over the batch. A difference
    in a channel that is not kept moves the means. They are compared more closely: the rounding of
    many values cancels out.
    """
    if key in numbers:
        assert_close(got.numpy(), numbers[key])
        return
    (kept,) = (k for k in numbers if k.startswith(f"{key}/every_"))
    step = int(re.search(r"every_(\d+)th_channel$", kept)[1])
    channels = numbers[kept]
    assert_close(got[:, ::step].numpy(), channels)
    atol = 2e-6 * np.abs(channels).max()
    means = (("over_channels", (1,)), ("over_locations", (2, 3)), ("by_channel", (0, 2, 3)))
    for name, axes in means:
        if (want := numbers.get(f"{key}/mean_{name}")) is not None:
            mean = got.double().mean(axes).numpy()
            np.testing.assert_allclose(mean, want, rtol=0, atol=atol, err_msg=key)


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def cases(name: str) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The cases of a unit file: name and arrays."""
    arrays = np.load(UNITS / f"{name}.npz")
    names = list(dict.fromkeys(key.split("/")[0] for key in arrays.files))
    return [
        (c, {k.split("/", 1)[1]: arrays[k] for k in arrays.files if k.startswith(c + "/")})
        for c in names
    ]


def params(name: str) -> pytest.MarkDecorator:
    """Run a test with the ``numbers`` of each case."""
    return pytest.mark.parametrize(
        "numbers", [pytest.param(arrays, id=case) for case, arrays in cases(name)]
    )
