"""Parts of the compared detectors against MMDetection's own numbers."""

import numpy as np
import pytest
import torch
from golden_checks import UNITS, cases, params
from vfnet_yolof.checkpoint.mmdet import REPPOINTS_HEAD_RULES, TOWER_RULES
from vfnet_yolof.checkpoint.rules import apply_rules
from vfnet_yolof.modeling.anchors import CellAnchors, OctaveAnchors, SSDAnchors
from vfnet_yolof.modeling.assigners import (
    FoveaAssigner,
    MMDetMaxIoUAssigner,
    NearestPointAssigner,
)
from vfnet_yolof.modeling.boxes import (
    SCALE_CLAMP,
    ClampedDeltaCoder,
    boxes_to_distances,
    centerness_target,
    clip_boxes,
    distances_to_boxes,
)
from vfnet_yolof.modeling.heads import RepPointsHead
from vfnet_yolof.modeling.losses import FocalLoss, MinedCrossEntropy, SmoothL1BoxLoss
from vfnet_yolof.modeling.necks.ssd_neck import L2Norm
from vfnet_yolof.modeling.points import PointGenerator, valid_mask
from vfnet_yolof.modeling.representations import DiracDelta, MomentPoints

pytestmark = pytest.mark.golden
CPU = torch.device("cpu")


def tensors(name: str) -> dict[str, torch.Tensor]:
    arrays = np.load(UNITS / f"{name}.npz")
    return {k: torch.from_numpy(np.asarray(arrays[k])) for k in arrays.files}


@pytest.mark.parametrize(
    ("name", "generator"), [("retinanet", OctaveAnchors()), ("ssd512", SSDAnchors())]
)
def test_anchors_bit_for_bit(name: str, generator: CellAnchors) -> None:
    numbers = tensors("anchors")
    grids = generator([torch.zeros(1, 1, 3, 4)] * len(generator.strides))
    for level, (cell, grid) in enumerate(zip(generator.cell_anchors, grids, strict=True)):
        assert torch.equal(cell, numbers[f"{name}/base/{level}"])
        assert torch.equal(grid.tensor, numbers[f"{name}/grid_3x4/{level}"])
        cells = valid_mask([(3, 4)], [generator.strides[level]], (20, 20), CPU)
        valid = cells.repeat_interleave(len(cell))
        assert torch.equal(valid, numbers[f"{name}/valid_3x4_for_20x20/{level}"])


@pytest.mark.parametrize(("name", "offset"), [("fovea", 0.5), ("reppoints", 0.0)])
def test_points(name: str, offset: float) -> None:
    numbers = tensors("anchors")
    for level, points in enumerate(PointGenerator(offset=offset).points([(3, 4)] * 5, CPU)):
        assert torch.equal(points, numbers[f"{name}/points_3x4/{level}"][:, :2])


@pytest.mark.parametrize("name", ["retinanet", "ssd_atss"])
def test_deltas(name: str) -> None:
    numbers = tensors("delta_coder")
    stds = numbers[f"{name}/stds"].tolist()
    coder = ClampedDeltaCoder(None, shrink_clamp=SCALE_CLAMP, stds=stds)
    deltas = numbers["deltas"].requires_grad_()
    encoded = coder.encode(numbers["anchors"], numbers["boxes"])
    torch.testing.assert_close(encoded, numbers[f"{name}/encoded"], rtol=1e-5, atol=1e-5)
    decoded = coder.decode(deltas, numbers["anchors"])
    torch.testing.assert_close(decoded, numbers[f"{name}/decoded"], rtol=1e-5, atol=1e-3)
    clipped = clip_boxes(decoded, (200, 250))
    want = numbers[f"{name}/decoded_clipped_to_200x250"]
    torch.testing.assert_close(clipped, want, rtol=1e-5, atol=1e-3)
    decoded.sum().backward()
    want = numbers[f"{name}/grad_of_sum"]
    torch.testing.assert_close(deltas.grad, want, rtol=1e-4, atol=1e-2)


ASSIGNERS = {
    "retinanet_reppoints": MMDetMaxIoUAssigner(0.4, 0.5),
    "ssd": MMDetMaxIoUAssigner(0.5, 0.5, all_best=False),
}


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("kind", ASSIGNERS)
@params("max_iou_assigner")
def test_max_iou_assigner(numbers: dict, kind: str, pieces: int, monkeypatch) -> None:
    anchors, boxes = (torch.from_numpy(numbers[x]) for x in ("anchors", "boxes"))
    pairs = -(-len(anchors) * max(1, len(boxes)) // pieces)
    monkeypatch.setattr(ASSIGNERS[kind], "max_pairs", pairs)
    match = ASSIGNERS[kind](anchors, boxes)
    got = torch.where(match.ignored, -1, match.assigned + 1)
    np.testing.assert_array_equal(got.numpy(), numbers[f"{kind}/gt_inds"])


FOVEA_CASES = ("mixed", "same_area", "on_the_edge", "none")


@pytest.mark.parametrize("max_pairs", [4_000_000, 1])
@pytest.mark.parametrize("case", FOVEA_CASES)
def test_fovea_targets(case: str, max_pairs: int) -> None:
    """The box of each location, and its targets as FoveaBox takes the logarithm of them."""
    numbers = tensors("fovea_targets")
    sizes = [tuple(x) for x in numbers["sizes"].tolist()]
    grid = PointGenerator(offset=FoveaAssigner.point_offset).grid(sizes, CPU)
    boxes = numbers[f"{case}/boxes"]
    match = FoveaAssigner(max_pairs=max_pairs)(grid.anchors, boxes, level_sizes=grid.level_sizes)
    want = torch.cat([numbers[f"{case}/owner/{i}"].flatten() for i in range(5)])
    np.testing.assert_array_equal(match.assigned.numpy(), want.numpy())
    positive = match.anchor_idx
    ratio = boxes_to_distances(grid.points[positive], boxes[match.gt_idx])
    logs = (ratio / (2 * grid.strides[positive, None])).clamp(1 / 16, 16).log()
    targets = torch.cat([numbers[f"{case}/bbox_targets/{i}"].flatten(0, 1) for i in range(5)])
    torch.testing.assert_close(logs, targets[positive], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("base", [16, 256])
def test_fovea_decoding(base: int) -> None:
    numbers = tensors("fovea_targets")
    ltrb = DiracDelta(unit=2.0).decode(numbers["decode/pred"]) * (base / 2)
    boxes = clip_boxes(distances_to_boxes(numbers["decode/points"], ltrb), (199, 229))
    want = numbers[f"decode/base{base}_clipped_to_200x230"]
    torch.testing.assert_close(boxes, want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("topk", [1, 3])
@pytest.mark.parametrize("case", ["mixed", "same_point", "twice", "levels", "tie", "none"])
def test_nearest_points(case: str, topk: int) -> None:
    numbers = tensors("point_assigner")
    sizes = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]
    grid = PointGenerator().grid(sizes, CPU)
    assert torch.equal(grid.points, numbers["points"][:, :2])
    assigner = NearestPointAssigner(topk=topk)
    boxes = numbers[f"{case}/boxes"]
    match = assigner(grid.anchors, boxes, level_sizes=grid.level_sizes)
    np.testing.assert_array_equal(match.assigned + 1, numbers[f"{case}/k{topk}/gt_inds"])


@pytest.mark.parametrize("case", ["moment_zero", "moment_y_first", "moment_map"])
def test_moments(case: str) -> None:
    """Boxes around the location itself, and the gradients at points and ``moment_transfer``."""
    numbers = {k.split("/")[1]: v for k, v in tensors("reppoints_transform").items() if case in k}
    representation = MomentPoints()
    representation.moment_transfer.data = numbers["moment_transfer"]
    raw = numbers["points"].requires_grad_()
    by_row = raw if raw.ndim == 2 else raw.movedim(1, -1)
    boxes = distances_to_boxes(torch.zeros(2), representation.decode(by_row))
    boxes = boxes if raw.ndim == 2 else boxes.movedim(-1, 1)
    torch.testing.assert_close(boxes, numbers["boxes"], rtol=1e-5, atol=1e-5)
    (boxes * numbers["weights"]).sum().backward()
    torch.testing.assert_close(raw.grad, numbers["grad_points"], rtol=1e-4, atol=1e-5)
    got = representation.moment_transfer.grad
    torch.testing.assert_close(got, numbers["grad_moment_transfer"], rtol=1e-4, atol=1e-6)


def test_reppoints_head() -> None:
    """Outputs and all gradients of one level of a narrow head."""
    numbers = tensors("reppoints_head")
    head = RepPointsHead(in_channels=32, conv_channels=32, num_classes=5, strides=[8])
    source = {
        k.replace("param/", "bbox_head."): v for k, v in numbers.items() if k.startswith("param/")
    }
    converted, report = apply_rules(source, TOWER_RULES + REPPOINTS_HEAD_RULES)
    assert not report.unmatched
    head.load_state_dict({k.removeprefix("head."): v for k, v in converted.items()})
    for module in head.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = 4  # of these numbers: 32 groups would have one channel each
    x = numbers["x"].requires_grad_()
    got = head([x])
    outputs = {"cls_logits": got.logits, "pts_init": got.sides_init, "pts_refine": got.sides}
    total = 0.0
    for name, (output,) in outputs.items():
        torch.testing.assert_close(output, numbers[name], rtol=1e-4, atol=1e-5)
        total = total + (output * numbers[f"weights/{name}"]).sum()
    total.backward()
    torch.testing.assert_close(x.grad, numbers["grad_x"], rtol=1e-3, atol=1e-4)
    own = dict(head.named_parameters())
    compared = [k for k in numbers if k.startswith("grad/")]
    assert len(compared) == len(own) - 1  # moment_transfer takes part in decoding only
    for key in compared:
        name = report.renamed[key.replace("grad/", "bbox_head.")].removeprefix("head.")
        torch.testing.assert_close(own[name].grad, numbers[key], rtol=1e-3, atol=1e-3)


def test_l2_norm() -> None:
    numbers = tensors("l2_norm")
    layer = L2Norm(16)
    layer.weight.data = numbers["weight"]
    x = numbers["x"].requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, numbers["y"])
    (y * numbers["loss_weights"]).sum().backward()
    torch.testing.assert_close(x.grad, numbers["grad_x"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, numbers["grad_weight"], rtol=1e-4, atol=1e-5)
    zeros = layer(torch.zeros_like(numbers["y_of_zeros"]))
    torch.testing.assert_close(zeros, numbers["y_of_zeros"])


@params("ssd_loss")
def test_ssd_loss(numbers: dict) -> None:
    """Losses, kept negatives and gradients of one image; rows without weight are not valid."""
    logits, deltas = (torch.from_numpy(numbers[x]).requires_grad_() for x in ("logits", "deltas"))
    labels, weights = (torch.from_numpy(numbers[x]) for x in ("labels", "label_weights"))
    kept, loss = [], MinedCrossEntropy(ratio=3.0)
    hardest = loss.hardest
    loss.hardest = lambda *args: kept.append(hardest(*args)) or kept[-1]
    divisor = float(numbers["avg_factor"])
    cls = loss.on_labels(logits[None], labels[None], None, (weights > 0)[None]) / divisor
    np.testing.assert_allclose(cls.item(), numbers["loss_cls"], rtol=1e-5)
    want = np.sort(numbers["kept_negatives"])
    got = kept[0][0].nonzero()[:, 0].numpy()
    np.testing.assert_array_equal(got, want[weights.numpy()[want] > 0])
    cls.backward()
    np.testing.assert_allclose(logits.grad.numpy(), numbers["grad_logits"], rtol=1e-4, atol=1e-6)

    chosen = (labels < 80).nonzero()[:, 0]

    class Given:
        """A coder whose targets are given."""

        def encode(self, anchors: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            return boxes

    targets = torch.from_numpy(numbers["bbox_targets"])[chosen]
    box = SmoothL1BoxLoss(beta=1.0)(Given(), deltas[chosen], targets, targets).sum() / divisor
    np.testing.assert_allclose(box.item(), numbers["loss_bbox"], rtol=1e-5)
    box.backward()
    np.testing.assert_allclose(deltas.grad.numpy(), numbers["grad_deltas"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "gamma", "alpha"), [("2_025", 2.0, 0.25), ("15_04", 1.5, 0.4)])
def test_focal_loss_with_labels(name: str, gamma: float, alpha: float) -> None:
    """With weights of 0, as ignored rows have; other weights do not occur."""
    numbers = {k.split("/")[1]: v for k, v in tensors("losses_more").items() if name in k}
    logits, labels = numbers["logits"].requires_grad_(), numbers["labels"]
    for row in (slice(0, 20), slice(20, 40)):
        got = FocalLoss(alpha, gamma).on_labels(logits[row], labels[row])
        torch.testing.assert_close(got, numbers["loss_none"][row].sum(), rtol=1e-5, atol=1e-5)


def test_centerness() -> None:
    """From the middle of the anchor."""
    ((_, numbers),) = [(k, v) for k, v in cases("losses_more") if k == "centerness"]
    anchors, boxes = (torch.from_numpy(numbers[x]) for x in ("anchors", "boxes"))
    got = centerness_target(boxes_to_distances((anchors[:, :2] + anchors[:, 2:]) / 2, boxes))
    np.testing.assert_allclose(got.numpy(), numbers["target"], rtol=1e-5, atol=1e-6)
