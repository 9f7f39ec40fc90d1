"""Diagrams show what is built: blocks, what flows between them, and where they are drawn."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from detectron2.layers import CNNBlockBase
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from tiny import (
    tiny_atss,
    tiny_foveabox,
    tiny_gfl,
    tiny_reppoints,
    tiny_retinanet,
    tiny_ssd,
    tiny_vfnet,
    tiny_yolof,
)
from vfnet_yolof.analysis.architecture import Architecture, Block, architecture_of
from vfnet_yolof.analysis.diagram import diagram, draw, layered
from vfnet_yolof.analysis.uses import predictions_of, uses_of
from vfnet_yolof.cli.main import main
from vfnet_yolof.drawing.charts import file_bytes
from vfnet_yolof.modeling.losses import GuidedFocalLoss
from vfnet_yolof.modeling.meta_arch.gfl import CenternessTarget, IoUTarget

SIZE = (64, 96)


def sources(graph: Architecture, name: str) -> list[str]:
    return sorted(x.rpartition(".")[2] for x in graph.blocks[name].sources)


def test_vfnet_has_star_convolutions_on_the_first_box() -> None:
    """VarifocalNet, figure 3."""
    graph = architecture_of(tiny_vfnet(head__num_convs=3), SIZE)
    assert [name for name, _, _ in graph.levels] == ["p3", "p4", "p5", "p6", "p7"]
    assert graph.levels[0][2] == (64, 8, 12)
    tower = graph.blocks["head.reg_tower.2"]
    assert (tower.repeats, [*tower.sources]) == (3, ["p3 … p7"])
    assert len(tower.shapes) == 5  # the same weights on five levels
    assert graph.blocks["head.cls_star"].lines[1:] == ["3×3 star conv", "64"]
    assert [*graph.blocks["head.reg_star"].sources] == ["head.reg_tower.2", "head.reg_init"]
    assert [*graph.blocks["head.cls_star"].sources] == ["head.cls_tower.2", "head.reg_init"]
    (product,) = [block for block in graph.part("head").values() if block.is_join]
    assert product.lines == ["×"]
    assert {*product.sources} == {"head.reg_refine", "head.reg_init"}
    assert {x[0]: x[1] for x in graph.outputs} == {
        "logits": ["head.cls_logits"],
        "sides": [product.name],
        "ltrb_init": ["head.reg_init"],
    }


def test_a_pyramid_adds_the_coarser_level() -> None:
    graph = architecture_of(tiny_gfl(), SIZE)
    made = {name: block for name, block, _ in graph.levels}
    (added,) = graph.blocks[made["p3"]].sources
    assert graph.blocks[added].lines == ["+"]
    finer, coarser = graph.blocks[added].sources
    assert (finer, graph.blocks[coarser].lines) == ("neck.fpn_lateral3", ["+"])
    assert sources(graph, made["p5"]) == ["fpn_lateral5"]
    assert sources(graph, "neck.fpn_lateral4") == ["res4"]
    assert sources(graph, made["p7"]) == ["p6"]


def test_yolof_dilates_one_level() -> None:
    """YOLOF, figures 2, 5 and 9."""
    graph = architecture_of(tiny_yolof(), SIZE)
    assert [name for name, _, _ in graph.levels] == ["encoded"]
    chain = ["neck.lateral", "neck.output", "neck.blocks.0", "neck.blocks.1"]
    assert [*graph.part("neck")] == chain
    dilations = [graph.blocks[name].lines[1] for name in chain[2:]]
    assert dilations == ["1×1 3×3 1×1, dilation 1", "1×1 3×3 1×1, dilation 2"]
    assert graph.blocks["neck.blocks.0"].lines[2] == "8 inside, shortcut"
    assert graph.outputs[0] == ("logits", ["head.cls_logits", "head.objectness"], 4 * 3)


def test_a_quality_branch_is_beside_the_box() -> None:
    """Generalized Focal Loss, figures 1, 4 and 6."""
    separate = architecture_of(tiny_atss(), SIZE)
    assert {x[0]: x[1] for x in separate.outputs}["quality_logits"] == ["head.quality"]
    assert [*separate.blocks["head.quality"].sources] == [*separate.blocks["head.reg"].sources]
    joint = architecture_of(tiny_gfl(), SIZE)
    assert [x[0] for x in joint.outputs] == ["logits", "sides"]


def used(model) -> dict[str, tuple[list[str], list[str]]]:
    """Lines and sources of each use of a model's predictions."""
    predictions = predictions_of(model, architecture_of(model, SIZE))
    return {name: (x.lines, [*x.sources]) for name, x in uses_of(model, predictions).items()}


def test_a_joint_representation_learns_from_the_box_and_is_tested_as_it_is() -> None:
    """Generalized Focal Loss, figures 1b and 4."""
    assert used(tiny_gfl()) == {
        "training logits": (["QualityFocalLoss", "target: IoU"], ["logits", "sides"]),
        "training sides": (
            ["GIoU loss", "weight: PredictedScore", "with DFL"],
            ["sides", "logits"],
        ),
        "testing": (["in tests", "HardNMS"], ["logits", "sides"]),
    }


def test_a_separate_quality_meets_the_scores_in_tests_only() -> None:
    """Generalized Focal Loss, figures 1a and 6."""
    assert used(tiny_atss()) == {
        "training logits": (["FocalLoss"], ["logits"]),
        "training sides": (["GIoU loss", "weight: Centerness"], ["sides"]),
        "training quality_logits": (["cross entropy", "target: Centerness"], ["quality_logits"]),
        "testing product": (["×"], ["logits", "quality_logits"]),
        "testing": (["in tests", "HardNMS"], ["testing product", "sides"]),
    }


def test_what_is_measured_has_an_arrow() -> None:
    """Generalized Focal Loss, figure 6: an IoU is that of the predicted box, centerness is not."""
    model = tiny_atss()
    model.quality = model.cls_quality = IoUTarget()
    model.cls_loss = GuidedFocalLoss()
    uses = used(model)
    assert uses["training logits"] == (["GuidedFocalLoss", "weight: IoU"], ["logits", "sides"])
    assert uses["training quality_logits"] == (
        ["cross entropy", "target: IoU"],
        ["quality_logits", "sides"],
    )
    model.cls_quality = CenternessTarget()
    assert used(model)["training logits"] == (["GuidedFocalLoss", "weight: Centerness"], ["logits"])


def test_a_loss_of_ones_own_takes_the_quality_as_the_detector_does() -> None:
    class Own:
        """Without the attributes of this project's losses."""

    model = tiny_yolof()
    model.cls_loss = Own()
    assert used(model)["training logits"] == (["Own", "quality: IoU"], ["logits", "deltas"])


def test_detectron2s_fcos_is_drawn_without_losses(tmp_path: Path) -> None:
    drawn = diagram("baselines/fcos_small.py", (64, 96))
    assert "in tests" not in texts_of(file_bytes(drawn.figure, "svg"))


def test_no_arrow_crosses_a_box_that_it_does_not_belong_to() -> None:
    for build in (tiny_atss, tiny_gfl, tiny_vfnet):
        axes = draw(build(), SIZE, "")[0].axes[0]
        boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        ways = [zip(*line.get_data(), strict=True) for line in axes.lines]
        ways += [x._posA_posB for x in axes.patches if isinstance(x, FancyArrowPatch)]
        for (x0, y0), (x1, y1) in ways:
            for share in (0.25, 0.5, 0.75):
                x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
                assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for box in boxes)


def test_vfnet_learns_the_quality_of_its_refined_box() -> None:
    """VarifocalNet, figure 3 and equation 3."""
    uses = used(tiny_vfnet())
    assert uses["training logits"] == (["VarifocalLoss", "target: IoU"], ["logits", "sides"])
    assert uses["training ltrb_init"] == (["IoU × GIoU loss"], ["ltrb_init"])
    assert "testing product" not in uses


def test_levels_with_weights_of_their_own_stay_apart() -> None:
    graph = architecture_of(tiny_ssd(), (320, 320))
    for number, (name, _, _) in enumerate(graph.levels):
        assert [*graph.blocks[f"head.levels.{number}.deltas"].sources] == [name]


MODELS = [
    (tiny_vfnet, SIZE),
    (tiny_gfl, SIZE),
    (tiny_atss, SIZE),
    (tiny_yolof, SIZE),
    (tiny_retinanet, SIZE),
    (tiny_foveabox, SIZE),
    (tiny_reppoints, SIZE),
    (tiny_ssd, (320, 320)),
]


@pytest.mark.parametrize(("build", "size"), MODELS, ids=lambda x: getattr(x, "__name__", ""))
def test_every_detector_is_drawn_and_not_changed(build, size: tuple[int, int]) -> None:
    model = build().train()
    figure, graph = draw(model, size, "a detector")
    texts = [text.get_text() for text in figure.axes[0].texts]
    drawn = len(graph.blocks) + len(graph.levels) + len(graph.outputs)
    uses = len(uses_of(model, predictions_of(model, graph)))
    assert len(texts) == drawn + uses + 3  # with the headings of the three parts
    assert {*graph.blocks} == {*architecture_of(model, size).blocks}
    used = {x for block in graph.blocks.values() for x in block.sources}
    used |= {x[1] for x in graph.levels} | {y for x in graph.outputs for y in x[1]}
    assert used == {*graph.blocks}  # nothing is left without an arrow from it
    assert model.training and not any(x._forward_hooks for x in model.modules())


def test_boxes_do_not_overlap_and_arrows_point_to_the_right() -> None:
    edges = {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["d", "c"], "f": ["a", "e"]}
    blocks = {x: Block(x, "head", [x], sources=dict.fromkeys(s)) for x, s in edges.items()}
    places = layered(blocks)
    for name, its in edges.items():
        assert all(places[x][0] < places[name][0] for x in its)
    for one, other in combinations(blocks, 2):
        (x0, y0), (x1, y1) = places[one], places[other]
        assert x0 != x1 or abs(y0 - y1) >= 1 - 1e-9
    assert min(y for _, y in places.values()) == 0


def test_command(tmp_path: Path, capsys) -> None:
    output = tmp_path / "new" / "gfl.svg"
    arguments = ["gfl/gfl_small_shapes.py", "model.head.representation.reg_max=7"]
    assert main(["diagram", *arguments, "--size", "96", "128", "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    assert ">4 × 8 GeneralDistribution</text>" in output.read_text(encoding="utf-8")
    content = json.loads(output.with_suffix(".json").read_text())
    assert content["image"] == [96, 128]
    assert content["uses"][-1] == {
        "part": "testing",
        "lines": ["in tests", "HardNMS"],
        "sources": ["logits", "sides"],
    }
    assert {x["part"] for x in content["blocks"]} == {"backbone", "neck", "head"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gfl/gfl_small.py", "--output", "x.jpg"], "x.jpg: figures are PNG or SVG"),
        (["gfl/no_such.py", "--output", "x.png"], "no_such"),
        (["gfl/gfl_small.py", "--size", "0", "64", "--output", "x.png"], "size must be positive"),
    ],
)
def test_refused(arguments: list[str], says: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["diagram", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("page", "config", "image"),
    [
        ("vfnet", "vfnet/vfnet_r50_fpn_1x.py", "vfnet_diagram.svg"),
        ("gfl", "gfl/gfl_r50_fpn_1x.py", "gfl_diagram.svg"),
        ("gfl", "ablations/gfl_t1a_iou.py", "gfl_t1a_diagram.svg"),
        ("yolof", "yolof/yolof_r50_c5_1x.py", "yolof_diagram.svg"),
    ],
)
def test_the_detectors_pages_show_what_is_built_now(
    page: str, config: str, image: str, repository: Path
) -> None:
    command = f"vfnet-yolof diagram {config} --output {image}"
    assert command in (repository / "docs" / f"{page}.md").read_text(encoding="utf-8")
    shown = (repository / "docs" / image).read_bytes()
    assert texts_of(file_bytes(diagram(config, (800, 1344)).figure, "svg")) == texts_of(shown)


def texts_of(svg: bytes) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.decode())


def test_only_detectors_are_drawn() -> None:
    with pytest.raises(TypeError, match="backbone and head"):
        architecture_of(CNNBlockBase(3, 3, 1), SIZE)
