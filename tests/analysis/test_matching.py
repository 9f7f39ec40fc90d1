"""Positives by the size of objects: counted by hand, and the command that draws them."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from PIL import Image
from tiny import NUM_CLASSES, picture
from vfnet_yolof.analysis.matching import (
    SizeCounts,
    compared_matchers,
    count_positives,
    matching_statistics,
)
from vfnet_yolof.analysis.matching_report import as_table, draw, size_names
from vfnet_yolof.cli.reports import matching_tool
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.assigners import MaxIoUAssigner, PairMatch, SingleMatch, UniformAssigner
from vfnet_yolof.modeling.meta_arch import AnchorDetector

CONFIG = "yolof/yolof_small_overfit.py"


def tiny() -> AnchorDetector:
    config = load_config(CONFIG)
    config.model.num_classes = NUM_CLASSES
    bottom_up = config.model.backbone.bottom_up
    bottom_up.stem_channels = bottom_up.res2_channels = 8
    torch.manual_seed(0)
    return instantiate(config.model)


def as_lists(counts: SizeCounts) -> list[list[int]]:
    return [x.tolist() for x in counts]


class TestCountPositives:
    # Ten anchors; box 0 is small, 1 large, 2 large and matched by none, 3 medium.
    AREAS = torch.tensor([100.0, 40000.0, 9216.0, 9215.0])

    def count(self, pairs: list[tuple[int, int, bool]]) -> list[list[int]]:
        """pairs: (anchor, box, ignored)."""
        anchor_idx, gt_idx, ignored = zip(*pairs, strict=True) if pairs else ((), (), ())
        match = PairMatch(
            torch.tensor(anchor_idx, dtype=torch.int64),
            torch.tensor(gt_idx, dtype=torch.int64),
            torch.tensor(ignored, dtype=torch.bool),
            torch.zeros(10, dtype=torch.bool),
        )
        return as_lists(count_positives(match, self.AREAS, (1024.0, 9216.0)))

    def test_by_hand(self) -> None:
        pairs = [
            (3, 0, False),
            (3, 0, False),  # by the prediction and by the anchor: one positive
            (4, 0, True),
            (4, 1, False),  # another object's claim on the same anchor counts for it
            (9, 1, False),
            (0, 3, True),
        ]
        assert self.count(pairs) == [[1, 1, 2], [2, 1, 2], [1, 0, 2]]

    def test_nothing_matched(self) -> None:
        assert self.count([]) == [[1, 1, 2], [0, 0, 0], [0, 0, 0]]

    def test_no_objects(self) -> None:
        match = SingleMatch(torch.full((10,), -1))
        assert as_lists(count_positives(match, torch.zeros(0), (1.0,))) == [[0, 0]] * 3


def test_statistics_are_the_sums_over_the_pictures() -> None:
    model = tiny()
    assigner = model.assigner
    batches = [[picture(size=(96, 128)), picture(seed=3)], [picture([], seed=4)]]
    batches[0][1]["height"] = batches[0][1]["width"] = 640  # ten times what the model sees
    matchers = {"Max-IoU": MaxIoUAssigner(), "Uniform": UniformAssigner(topk=2)}
    got = matching_statistics(model, batches, matchers)
    assert list(got) == list(matchers)
    # Of 36 x 32 and 30 x 42 px: two medium objects, and two large ones in the larger file.
    assert all(counts.boxes.tolist() == [0, 2, 2] for counts in got.values())
    assert model.assigner is assigner

    # Max-IoU knows no predictions: the same again, object by object.
    want = [0, 0, 0]
    for item, size in zip(batches[0], (1, 2), strict=True):
        features = [torch.zeros(1, 1, 12, 16)]  # a batch is as large as its largest picture
        anchors = model.anchor_generator(features)[0].tensor
        match = MaxIoUAssigner()(anchors, item["instances"].gt_boxes.tensor)
        want[size] += len(match.anchor_idx)
    assert got["Max-IoU"].positives.tolist() == want
    assert got["Max-IoU"].kept.tolist() == want
    per_object = got["Uniform"].positives[1:] / 2
    assert ((per_object >= 2) & (per_object <= 4)).all()
    assert (got["Uniform"].kept <= got["Uniform"].positives).all()


def test_the_four_rules_of_the_figure() -> None:
    matchers = compared_matchers()
    assert list(matchers) == ["Max-IoU", "ATSS", "Top-1", "Uniform"]
    assert (matchers["Top-1"].topk, matchers["Uniform"].topk) == (1, 4)


def test_table_and_plot() -> None:
    counts = SizeCounts(*(torch.tensor(x) for x in ([2, 0], [5, 0], [3, 0])))
    statistics = {"at initialisation": {"Top-1": counts}, "after training": {"Top-1": counts}}
    names = size_names([50.0])
    assert names == ["< 50 px", ">= 50 px"]
    assert size_names([32.0, 96.0]) == ["small", "medium", "large"]
    assert size_names([1, 2, 3])[1:3] == ["1-2 px", "2-3 px"]
    table = as_table(statistics, names)
    assert "< 50 px (2)" in table
    assert "2.50 / 1.50" in table
    figure = draw(statistics, names)
    assert len(figure.axes) == 4
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [2.5, 0.0]


@pytest.fixture
def data(tmp_path) -> list[str]:
    """Two noisy pictures with three objects, and the arguments that name them."""
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(generator.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(
            tmp_path / name
        )
    images = [
        {"id": i, "file_name": name, "height": 60, "width": 80}
        for i, name in enumerate(("a.png", "b.png"))
    ]
    boxes = [[2, 3, 20, 20], [10, 5, 60, 50], [30, 30, 12, 9]]
    annotations = [
        {
            "id": i + 1,
            "image_id": i % 2,
            "category_id": 1 + i % 2,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for i, box in enumerate(boxes)
    ]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    path = tmp_path / "boxes.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return ["--json", str(path), "--images", str(tmp_path)]


SMALL = [
    "model.backbone.bottom_up.stem_channels=8",
    "model.backbone.bottom_up.res2_channels=8",
    "model.num_classes=2",
]


def test_command(data, tmp_path, capsys) -> None:
    config = load_config(CONFIG)
    bottom_up = config.model.backbone.bottom_up
    bottom_up.stem_channels = bottom_up.res2_channels = 8
    config.model.num_classes = 2
    weights = tmp_path / "trained.pth"
    torch.manual_seed(5)
    torch.save({"model": instantiate(config.model).state_dict()}, weights)
    prefix = tmp_path / "new" / "fig6"
    arguments = ["--config-file", CONFIG, *data, "--weights", str(weights)]
    assert matching_tool("", [*arguments, "--output", str(prefix), *SMALL]) == 0
    assert "| after training" in capsys.readouterr().out
    content = json.loads(prefix.with_suffix(".json").read_text())
    assert content["images"] == 2
    fresh, trained = content["predictions"].values()
    assert fresh["Max-IoU"] == trained["Max-IoU"]
    assert fresh["Max-IoU"]["boxes"] == [2, 1, 0]
    assert fresh["Uniform"] != trained["Uniform"]
    assert Image.open(prefix.with_suffix(".png")).size[0] > 500
    assert "| Uniform" in prefix.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config-file", CONFIG, *SMALL[:2], "model.num_classes=1"], "model.num_classes=2"),
        (["--config-file", "vfnet/vfnet_small.py"], "no detector with anchors"),
        (["--config-file", CONFIG, "--weights", "no_such.pth", *SMALL], "no_such.pth"),
    ],
)
def test_mistakes_end_with_one_line(data, arguments, says: str, tmp_path, capsys) -> None:
    output = ["--output", str(tmp_path / "out")]
    config, rest = arguments[:2], arguments[2:]
    assert matching_tool("", [*config, *data, *output, *rest]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
