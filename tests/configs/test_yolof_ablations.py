"""The rows of YOLOF's tables differ from the full model in what they state, and in nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from config_diff import ABSENT, changes
from detectron2.config import instantiate
from tiny import empty_picture, picture
from vfnet_yolof.analysis import Cost, build_without_memory, count
from vfnet_yolof.config.packaged import config_dir, config_names, load_config
from vfnet_yolof.modeling.assigners import ATSSAssigner, MaxIoUAssigner
from vfnet_yolof.modeling.assigners.hungarian import HungarianAssigner
from vfnet_yolof.modeling.losses import GIoUBoxLoss
from vfnet_yolof.modeling.necks import MiSoEncoder, SiMoEncoder

BASE = "yolof/yolof_r50_c5_1x.py"
RETINANET = "baselines/retinanet_r50_fpn_1x.py"
Changes = dict[str, Any]

UNIFORM_GONE = {f"model.assigner.{key}": ABSENT for key in ("topk", "min_iou", "max_iou")}
MAX_IOU = {
    **UNIFORM_GONE,
    "model.assigner._target_": MaxIoUAssigner,
    "model.assigner.negative_iou": 0.4,
    "model.assigner.positive_iou": 0.5,
    "model.assigner.low_quality_matches": True,
}
HUNGARIAN = {
    **UNIFORM_GONE,
    "model.assigner._target_": HungarianAssigner,
    "model.assigner.cls_weight": 1.0,
    "model.assigner.l1_weight": 5.0,
    "model.assigner.giou_weight": 2.0,
    "model.assigner.box_scale": 1000.0,
}


def atss(topk: int) -> Changes:
    return {
        **UNIFORM_GONE,
        "model.assigner._target_": ATSSAssigner,
        "model.assigner.topk": topk,
    }


def listed(key: str, old: list, new: list) -> Changes:
    """What differs between two lists of a config."""
    both = range(max(len(old), len(new)))
    pairs = {i: (old[i : i + 1], new[i : i + 1]) for i in both}
    return {f"{key}.{i}": b[0] if b else ABSENT for i, (a, b) in pairs.items() if a != b}


def blocks(*dilations: int) -> Changes:
    return listed("model.backbone.dilations", [2, 4, 6, 8], list(dilations))


def ratios(number: int) -> Changes:
    if number == 1:
        return {}
    return listed("model.anchor_generator.aspect_ratios", [1.0], [0.5, 1.0, 2.0])


def octaves(number: int) -> Changes:
    sides = [32, 64, 128, 256, 512]
    sizes = [side * 2 ** (i / number) for side in sides for i in range(number)]
    return listed("model.anchor_generator.sizes.0", sides, sizes)


NO_BLOCKS = blocks()
TABLE_4 = {
    "none": NO_BLOCKS | MAX_IOU,
    "encoder": MAX_IOU,
    "matcher": NO_BLOCKS,
    "both": {},
}
DILATIONS = [(1,) * 4, (2,) * 4, (3,) * 4, (1, 2, 3, 4), (2, 4, 6, 8), (3, 6, 9, 12)]
PLAIN = {"model.backbone.shortcut": False}
ROWS: dict[str, Changes] = {
    **{f"yolof_t4_{row}": found for row, found in TABLE_4.items()},
    **{f"yolof_t5a_n{n}": blocks(*[1] * n) for n in (0, 2, 4, 6, 8, 10)},
    **{f"yolof_t5b_{'_'.join(map(str, d))}": blocks(*d) for d in DILATIONS},
    "yolof_t5c_2_4_6_8_shortcut": {},
    "yolof_t5c_2_4_6_8_plain": PLAIN,
    "yolof_t5c_1_1_1_1_shortcut": blocks(1, 1, 1, 1),
    "yolof_t5c_1_1_1_1_plain": blocks(1, 1, 1, 1) | PLAIN,
    **{f"yolof_t5d_top{k}": {} if k == 4 else {"model.assigner.topk": k} for k in range(1, 6)},
    "yolof_t5e_max_iou": MAX_IOU,
    "yolof_t5e_atss9": atss(9),
    "yolof_t5e_atss15": atss(15),
    "yolof_t5e_hungarian": HUNGARIAN,
    "yolof_t5e_uniform": {},
    "yolof_t7_sizes1_ratios1": {},
    "yolof_t7_sizes1_ratios3": ratios(3) | {"model.head.num_anchors": 15},
    "yolof_t7_sizes3_ratios1": octaves(3) | {"model.head.num_anchors": 15},
    "yolof_t7_sizes3_ratios3": octaves(3) | ratios(3) | {"model.head.num_anchors": 45},
    **{f"yolof_t8_k{k}": atss(k) for k in range(5, 20, 2)},
}

# AP on val2017.
PUBLISHED = {
    "yolof_t4": [21.1, 29.1, 33.8, 37.7],
    "yolof_t5a": [33.8, 34.9, 35.5, 36.0, 36.6, 36.9],
    "yolof_t5b": [35.5, 36.4, 36.9, 37.4, 37.7, 37.3],
    "yolof_t5c": [37.7, 34.1, 35.5, 32.6],
    "yolof_t5d": [35.9, 37.2, 37.5, 37.7, 37.5],
    "yolof_t5e": [29.1, 34.6, 36.5, 35.8, 37.7],
    "yolof_t7": [37.7, 37.7, 35.0, 35.4],
    "yolof_t8": [33.7, 33.8, 34.6, 35.8, 35.5, 36.5, 36.3, 36.2],
}


def file(row: str) -> str:
    return f"ablations/{row}.py"


def test_every_row_is_described_here() -> None:
    found = {Path(n).stem for n in config_names() if n.startswith("ablations/yolof_")}
    figure_1 = {f"yolof_fig1_{kind}" for kind in ("mimo", "simo", "miso", "siso")}
    assert found == set(ROWS) | figure_1 | {"yolof_fig3_siso_512"}


def test_the_wide_single_level_of_figure_3() -> None:
    wide = {"model.backbone.out_channels": 512, "model.head.conv_channels": 512}
    assert changes("ablations/yolof_fig1_siso.py", "ablations/yolof_fig3_siso_512.py") == wide


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(row: str) -> None:
    assert changes(BASE, file(row)) == ROWS[row]


@pytest.mark.parametrize("row", TABLE_4)
def test_the_small_rows_change_the_same(row: str) -> None:
    small = f"yolof/small_t4_{row}_shapes.py"
    assert changes("yolof/yolof_small_shapes.py", small) == TABLE_4[row]


def test_published_figures_are_quoted() -> None:
    quoted: dict[str, list[float]] = {}
    for row in ROWS:
        text = (config_dir() / file(row)).read_text()
        figure = re.search(r"Published AP on val2017, not measured here: (\d+\.\d)\.", text)
        quoted.setdefault(row[: row.index("_", 6)], []).append(float(figure[1]))
    assert quoted == PUBLISHED


def schedule(max_iter: int, steps: list[int], batch: int = 64) -> Changes:
    """What a schedule that is not 1x with 64 images changes."""
    scheduler = "lr_multiplier.scheduler."
    all_of_them = {
        "train.max_iter": (22500, max_iter),
        "train.reference_batch_size": (64, batch),
        "dataloader.train.total_batch_size": (64, batch),
        scheduler + "num_updates": (22500, max_iter),
        scheduler + "milestones.0": (15000, steps[0]),
        scheduler + "milestones.1": (20000, steps[1]),
        "lr_multiplier.warmup_factor": (1 / 1500, batch / 64 / 1500),
        "lr_multiplier.warmup_length": (1500 / 22500, 1500 * 64 / batch / max_iter),
        "optimizer.lr": (0.12, 0.12 * batch / 64),
    }
    return {key: new for key, (old, new) in all_of_them.items() if new != old}


R101 = {"model.backbone.bottom_up.depth": 101}
DC5 = {
    **blocks(4, 8, 12, 16),
    **listed(
        "model.anchor_generator.sizes.0", [32, 64, 128, 256, 512], [16, 32, 64, 128, 256, 512]
    ),
    "model.backbone.bottom_up.res5_dilation": 2,
    "model.anchor_generator.strides.0": 16,
    "model.head.num_anchors": 6,
    "model.assigner.topk": 8,
    "model.assigner.min_iou": 0.1,
}
RESIZE = "dataloader.train.mapper.augmentations.0."
MULTI_SCALE = {
    RESIZE + "short_edge_length": ABSENT,  # one number in the base
    RESIZE + "short_edge_length.0": 400,
    RESIZE + "short_edge_length.1": 1400,
    RESIZE + "max_size": 1600,
    RESIZE + "sample_style": "range",
}
X101 = {
    **R101,
    "model.backbone.bottom_up.num_groups": 64,
    "model.backbone.bottom_up.width_per_group": 4,
    "model.backbone.bottom_up.stride_in_1x1": False,
}
HALF_BATCH = schedule(45000, [30000, 40000], 32)
SIX_TIMES = schedule(135000, [120000, 130000])


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("yolof_r101_c5_1x", R101),
        ("yolof_r50_dc5_1x", DC5),
        ("yolof_r101_dc5_1x", R101 | DC5 | HALF_BATCH),
        ("yolof_x101_64x4d_c5_1x", X101 | HALF_BATCH),
        ("yolof_r50_c5_3x", schedule(67500, [52500, 62500])),
        ("yolof_r50_c5_ms_6x", MULTI_SCALE | SIX_TIMES),
        ("yolof_r101_c5_ms_6x", R101 | MULTI_SCALE | SIX_TIMES),
        (
            "yolof_x101_64x4d_c5_ms_3x",
            X101 | MULTI_SCALE | schedule(135000, [105000, 125000], 32),
        ),
    ],
)
def test_the_larger_models_and_longer_schedules(name: str, want: Changes) -> None:
    got = changes(BASE, f"yolof/{name}.py")
    assert got == {key: pytest.approx(x) if isinstance(x, float) else x for key, x in want.items()}


PLUS = {
    "model.box_loss._target_": GIoUBoxLoss,
    "model.box_loss.beta": ABSENT,
    "model.head.norm": "GN",
    "model.head.implicit_objectness": True,
}


@pytest.mark.parametrize(
    ("name", "want"), [("r101", R101), ("plus_r50", PLUS), ("plus_r101", R101 | PLUS)]
)
def test_baselines(name: str, want: Changes) -> None:
    assert changes(RETINANET, f"baselines/retinanet_{name}_fpn_1x.py") == want


@pytest.mark.parametrize(
    ("kind", "neck", "level_anchors"),
    [
        ("mimo", None, [9] * 5),
        ("simo", SiMoEncoder, [9] * 5),
        ("miso", MiSoEncoder, [5]),
        ("siso", None, [5]),
    ],
)
def test_encoders_of_figure_1(kind: str, neck: type | None, level_anchors: list[int]) -> None:
    """Only the encoder and what its number of levels brings with it differ."""
    found = changes(RETINANET, f"ablations/yolof_fig1_{kind}.py")
    assert found.get("model.backbone._target_") == neck
    parts = {".".join(key.split(".")[:2]) for key in found}
    levels = {"model.anchor_generator", "model.head", "model.head_in_features"}
    assert parts <= {"model.backbone"} | (levels if len(level_anchors) == 1 else set())
    config = load_config(f"ablations/yolof_fig1_{kind}.py")
    model = build_without_memory(lambda: instantiate(config.model))
    assert model.anchor_generator.num_anchors == level_anchors
    assert model.head.num_anchors == level_anchors[0]
    assert len(model.head_in_features) == len(level_anchors)
    if len(level_anchors) == 1:
        (cells,) = instantiate(config.model.anchor_generator).cell_anchors
        assert (cells[:, 2:] * 2).tolist() == [[side, side] for side in (32, 64, 128, 256, 512)]


def tiny(name: str) -> torch.nn.Module:
    config = load_config(name)
    model = config.model
    model.num_classes = 3
    bottom_up = model.backbone.bottom_up
    bottom_up.depth, bottom_up.stem_channels, bottom_up.res2_channels = 18, 8, 8
    bottom_up.stride_in_1x1, bottom_up.norm, bottom_up.freeze_at = False, "StaticBN", 0
    model.head.conv_channels = 64  # group norm needs two for each group
    if "channels" in model.backbone:
        model.backbone.channels, model.backbone.mid_channels = 64, 8
    else:
        model.backbone.out_channels = 64
        if model.backbone.get("top_block") is not None:
            model.backbone.top_block.in_channels = 64
    torch.manual_seed(0)
    return instantiate(model)


@pytest.mark.parametrize(
    "name",
    [
        "ablations/yolof_t4_none.py",
        "ablations/yolof_t5c_1_1_1_1_plain.py",
        "ablations/yolof_t5e_atss15.py",
        "ablations/yolof_t5e_hungarian.py",
        "ablations/yolof_t7_sizes3_ratios3.py",
        *(f"ablations/yolof_fig1_{kind}.py" for kind in ("mimo", "simo", "miso", "siso")),
        "baselines/retinanet_plus_r50_fpn_1x.py",
    ],
)
def test_rows_train_with_and_without_boxes_and_detect(name: str) -> None:
    model = tiny(name)
    batch = [picture(), empty_picture()]
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(x) for x in losses.values())
    unused = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    none = model([empty_picture()])
    assert none["loss_box"] == 0
    assert none["loss_cls"] > 0
    model.eval()
    with torch.no_grad():
        assert len(model(batch)) == 2


def cost_of(name: str) -> Cost:
    config = load_config(name)
    return count(build_without_memory(lambda: instantiate(config.model)), (800, 1344))


class TestCosts:
    """Tables 1 and 2, figure 3; multiply-adds at 800 x 1344 (the paper's are 0.82 times them)."""

    @pytest.mark.parametrize(
        ("name", "published", "reference"),
        [
            (BASE, 44, (44.11, 104.3)),
            ("yolof/yolof_r101_c5_1x.py", 63, None),
            ("yolof/yolof_r50_dc5_1x.py", None, (44.50, 218.0)),
            (RETINANET, 38, (37.92, 245.5)),
        ],
    )
    def test_parameters_and_multiply_adds(self, name: str, published, reference) -> None:
        cost = cost_of(name)
        if published is not None:
            assert cost.parameters / 1e6 == pytest.approx(published, rel=0.005)
        if reference is not None:
            assert cost.parameters / 1e6 == pytest.approx(reference[0], rel=0.005)
            assert cost.multiply_adds / 1e9 == pytest.approx(reference[1], rel=0.02)

    def test_ratios_of_table_1(self) -> None:
        r50 = cost_of(BASE).multiply_adds
        r101 = cost_of("yolof/yolof_r101_c5_1x.py").multiply_adds
        retinanet = cost_of(RETINANET).multiply_adds
        assert r101 / r50 == pytest.approx(151 / 86, rel=0.02)
        assert retinanet / r50 == pytest.approx(201 / 86, rel=0.02)
        assert retinanet / r101 == pytest.approx(201 / 151, rel=0.02)

    def test_encoder_and_decoder_of_figure_3(self) -> None:
        mimo, siso = (cost_of(f"ablations/yolof_fig1_{kind}.py") for kind in ("mimo", "siso"))
        ratio = (mimo.neck.multiply_adds + mimo.head.multiply_adds) / (
            siso.neck.multiply_adds + siso.head.multiply_adds
        )
        assert ratio == pytest.approx(134 / 6, rel=0.05)
