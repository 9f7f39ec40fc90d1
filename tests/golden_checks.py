"""Checks of a converted detector against reference numbers, shared by all detectors' tests."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from golden_recipe import batch
from golden_references import Reference
from torch import Tensor, nn
from vfnet_yolof.checkpoint.convert import convert_state_dict
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.losses import ClassificationLoss
from vfnet_yolof.modeling.meta_arch.base import feature_sizes

UNITS = Path(__file__).parent / "data" / "units"


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
    with remembered_network(model):
        return model.backbone(model.preprocess_image(inputs(model, golden, "main")).tensor)


@torch.no_grad()
def predictions(model: nn.Module, golden: Path) -> Any:
    """What the head gives for case ``main`` in training mode."""
    features = pyramid(model, golden)
    with remembered_network(model):
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
    with remembered_network(model):
        return {k: v.item() for k, v in model(inputs(model, golden, case)).items()}


_ANSWERS: WeakKeyDictionary[nn.Module, dict[Any, Any]] = WeakKeyDictionary()


def remember_network(model: nn.Module) -> nn.Module:
    """Let :func:`remembered_network` work on this model; copies of it compute anew."""
    _ANSWERS[model] = {}
    return model


@contextmanager
def remembered_network(model: nn.Module) -> Iterator[None]:
    """Compute backbone and head once for the same images, where no gradient is asked for.

    A detector's cases differ in their boxes alone, its tests in what is made of the network's
    answer.
    """
    known = _ANSWERS.get(model)
    if known is None:
        yield
        return

    def answering(part: nn.Module, key_of: Callable[[Any], Any]) -> Any:
        forward = part.forward

        def answer(x: Any) -> Any:
            key = (part is model.head, part.training, key_of(x))
            if key not in known:
                known[key] = forward(x)
            return known[key]

        return patch.object(part, "forward", answer)

    on_images = answering(model.backbone, lambda x: (x.shape, sha256(x.numpy()).digest()))
    on_maps = answering(model.head, lambda maps: tuple(map(id, maps)))  # those that are known
    with on_images, on_maps:
        yield


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
    with remembered_network(model):
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
