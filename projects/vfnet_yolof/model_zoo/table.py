"""Where the weights lie that are published for a config, beside the row's AP.

Their AP is that of :mod:`.published`; on val2017 and on test-dev are told apart, None where none
is published. Sources of the weights: the authors' repositories, and MMDetection's lists of models
(whose "box AP" for VFNet is that on test-dev).
"""

from __future__ import annotations

from typing import NamedTuple

from .published import TEST_DEV, VAL, published_ap, rows

_MMDET = "mmdetection/v2.0"
# The same files under two names; both were unreachable for long times.
_HOSTS = ("https://download.openmmlab.com", "https://openmmlab.oss-cn-hangzhou.aliyuncs.com")
_DRIVE = "https://drive.google.com/file/d"
_VFNET_AUTHORS = "https://github.com/hyz-xmaster/VarifocalNet#results-and-models"
_YOLOF_AUTHORS = "https://github.com/chensnathan/YOLOF#main-results"


class Pipeline(NamedTuple):
    """How images were brought to a checkpoint in its training, and so have to be in its use.

    Attributes:
        interpolation: of resizing, "opencv" or "pil".
        divisor: height and width are padded to multiples of so many px; 0: not at all.
        image_format: order of the channels.
    """

    interpolation: str
    divisor: int
    image_format: str

    def __str__(self) -> str:
        padding = f"padded to {self.divisor}" if self.divisor else "not padded"
        return f"{self.interpolation}, {padding}, {self.image_format}"


MMDETECTION = Pipeline("opencv", 32, "RGB")
MMDETECTION_CAFFE = Pipeline("opencv", 32, "BGR")  # with the weights of Caffe's ResNets
MMDETECTION_SSD = Pipeline("opencv", 0, "RGB")  # all images are squares of one size
YOLOF_AUTHORS = Pipeline("pil", 0, "BGR")


class Weights(NamedTuple):
    """A published checkpoint, in the layout of the project that trained it.

    Attributes:
        file: its name. sha256: first digits of its hash, or "" where none is published.
        addresses: where it can be fetched without a browser, best first.
        page: where a person finds it.
        pipeline: how images have to be brought to it.
        val: AP on val2017 of this very file, where it is another training than the row's.
        overrides: what the row's config needs changed for this file, because other code trained it:
            to bring images as :attr:`pipeline` says, and what else that code does differently.
    """

    file: str
    sha256: str
    addresses: tuple[str, ...]
    page: str
    pipeline: Pipeline
    val: float | None = None
    overrides: tuple[str, ...] = ()


class Row(NamedTuple):
    """A row of a paper's table.

    Attributes:
        val, test_dev: published AP.
        weights: None where they are in no file that could be named.
    """

    val: float | None
    test_dev: float | None
    weights: Weights | None = None

    @property
    def weights_val(self) -> float | None:
        """AP on val2017 that the weights should reach."""
        if self.weights is not None and self.weights.val is not None:
            return self.weights.val
        return self.val


def _mmdet(detector: str, model: str, tail: str, val: float | None = None) -> Weights:
    """MMDetection's file; the last eight digits of its name are the hash's first."""
    file = f"{model}_{tail}.pth"
    path = f"{_MMDET}/{detector}/{model}/{file}"
    page = f"https://github.com/open-mmlab/mmdetection/tree/main/configs/{detector}"
    addresses = tuple(f"{host}/{path}" for host in _HOSTS)
    return Weights(file, tail[-8:], addresses, page, MMDETECTION, val)


def _vfnet(model: str, tail: str) -> Weights:
    return _mmdet("vfnet", f"vfnet_{model}_coco", tail)


def _gfl(model: str, tail: str, val: float | None = None) -> Weights:
    return _mmdet("gfl", f"gfl_{model}_coco", tail, val)


def _mmdet_yolof(model: str, tail: str, val: float) -> Weights:
    """YOLOF trained by MMDetection, where the rows' configs are its authors'."""
    return _mmdet("yolof", f"yolof_{model}_coco", tail, val)._replace(
        pipeline=MMDETECTION_CAFFE,
        overrides=(
            "dataloader.train.mapper.interpolation=opencv",
            "model.backbone.size_divisibility=32",
            "model.postprocessor.clip=before_nms",
        ),
    )


def _by_hand(file: str, page: str, pipeline: Pipeline) -> Weights:
    """Behind a page that needs a browser; no hash is published."""
    return Weights(file, "", (), page, pipeline)


def _yolof_authors(model: str) -> Weights:
    return _by_hand(f"YOLOF_{model}.pth", _YOLOF_AUTHORS, YOLOF_AUTHORS)


def _drive(row: str, key: str) -> Weights:
    """Files of VFNet's and GFL's authors, who both work on MMDetection."""
    return _by_hand(f"{row}.pth", f"{_DRIVE}/{key}/view", MMDETECTION)


_WEIGHTS: dict[str, Weights | None] = {
    "vfnet/vfnet_r50_fpn_1x": _vfnet("r50_fpn_1x", "20201027-38db6f58"),
    "vfnet/vfnet_r50_fpn_ms_2x": _vfnet("r50_fpn_mstrain_2x", "20201027-7cc75bd2"),
    "vfnet/vfnet_r50_dcn_fpn_ms_2x": _vfnet(
        "r50_fpn_mdconv_c3-c5_mstrain_2x", "20201027pth-6879c318"
    ),
    "vfnet/vfnet_r101_fpn_1x": _vfnet("r101_fpn_1x", "20201027pth-c831ece7"),
    "vfnet/vfnet_r101_fpn_2x": _drive("vfnet_r101_fpn_2x", "1SXYCfkOXXGBhvURcqH23DA5gIwSFYz2u"),
    "vfnet/vfnet_r101_fpn_ms_2x": _vfnet("r101_fpn_mstrain_2x", "20201027pth-4a5d53f1"),
    "vfnet/vfnet_r101_dcn_fpn_ms_2x": _vfnet(
        "r101_fpn_mdconv_c3-c5_mstrain_2x", "20201027pth-7729adb5"
    ),
    "vfnet/vfnet_x101_32x4d_fpn_ms_2x": _drive(
        "vfnet_x101_32x4d_fpn_ms_2x", "1X-soI6dyFxv0jWOKxthPPsVeyqIRRa-F"
    ),
    "vfnet/vfnet_x101_32x4d_dcn_fpn_ms_2x": _vfnet(
        "x101_32x4d_fpn_mdconv_c3-c5_mstrain_2x", "20201027pth-d300a6fc"
    ),
    "vfnet/vfnet_x101_64x4d_fpn_ms_2x": _drive(
        "vfnet_x101_64x4d_fpn_ms_2x", "1m0BQ6XyAlxNdJQVbg_4OuEgEctywPVx9"
    ),
    "vfnet/vfnet_x101_64x4d_dcn_fpn_ms_2x": _vfnet(
        "x101_64x4d_fpn_mdconv_c3-c5_mstrain_2x", "20201027pth-b5f6da5e"
    ),
    "vfnet/vfnet_r2_101_fpn_ms_2x": _drive(
        "vfnet_r2_101_fpn_ms_2x", "1E4o1CxaWUQV7-HAyqbITw7JD8mOF7tNW"
    ),
    "vfnet/vfnet_r2_101_dcn_fpn_ms_2x": _drive(
        "vfnet_r2_101_dcn_fpn_ms_2x", "1kCiEqAA_VQlhbiNuZ3HWGhBD1JvVpK0c"
    ),
    "vfnet/vfnetx_r2_101_800": _by_hand("vfnetx_r2_101.pth", _VFNET_AUTHORS, MMDETECTION),
    "vfnet/vfnetx_r2_101_1200": _by_hand("vfnetx_r2_101.pth", _VFNET_AUTHORS, MMDETECTION),
    # table 4's other range of scales, and testing at 1333 x 900
    "vfnet/vfnet_r50_fpn_ms640_2x": None,
    "vfnet/vfnet_r101_fpn_ms640_2x": None,
    "vfnet/vfnet_x101_32x4d_fpn_ms640_2x": None,
    "vfnet/vfnet_x101_64x4d_fpn_ms640_2x": None,
    "vfnet/vfnet_r2_101_fpn_ms640_2x": None,
    "vfnet/vfnet_r50_dcn_fpn_ms640_2x": None,
    "vfnet/vfnet_r101_dcn_fpn_ms640_2x": None,
    "vfnet/vfnet_x101_32x4d_dcn_fpn_ms640_2x": None,
    "vfnet/vfnet_x101_64x4d_dcn_fpn_ms640_2x": None,
    "vfnet/vfnet_r2_101_dcn_fpn_ms640_2x": None,
    "vfnet/vfnet_r50_fpn_ms_2x_test900": None,
    "atss/atss_r50_fpn_1x": _mmdet("atss", "atss_r50_fpn_1x_coco", "20200209-985f7bd0"),
    "atss/atss_r101_fpn_ms_2x": None,
    "atss/atss_r101_dcn_fpn_ms_2x": None,
    "atss/atss_x101_64x4d_fpn_ms_2x": None,
    "atss/atss_x101_64x4d_dcn_fpn_ms_2x": None,
    "gfl/gfl_r50_fpn_1x": _gfl("r50_fpn_1x", "20200629_121244-25944287"),
    "gfl/gfl_r50_fpn_ms_2x": _gfl("r50_fpn_mstrain_2x", "20200629_213802-37bb1edc", 42.9),
    "gfl/gfl_r101_fpn_ms_2x": _gfl("r101_fpn_mstrain_2x", "20200629_200126-dd12f847", 44.7),
    "gfl/gfl_r101_dcnv2_fpn_ms_2x": None,
    "gfl/gfl_x101_32x4d_fpn_ms_2x": _gfl(
        "x101_32x4d_fpn_mstrain_2x", "20200630_102002-50c1ffdb", 45.9
    ),
    "gfl/gfl_x101_32x4d_dcnv2_fpn_ms_2x": None,
    "gfl/gfl_r101_dcnv1_fpn_ms_2x": _gfl(
        "r101_fpn_dconv_c3-c5_mstrain_2x", "20200630_102002-134b07df"
    ),
    "gfl/gfl_x101_32x4d_dcnv1_fpn_ms_2x": _gfl(
        "x101_32x4d_fpn_dconv_c4-c5_mstrain_2x", "20200630_102002-14a2bf25"
    ),
    "gfl/gfocal_r50_fpn_1x": _drive("gfocal_r50_fpn_1x", "184HAOoCl6j1-u0ad_lzmFFYQPY9nKxgy"),
    "gfl/gfocal_r50_fpn_ms_2x": None,
    "gfl/gfocal_r101_fpn_ms_2x": _drive(
        "gfocal_r101_fpn_ms_2x", "1vCYKVejsxO0Fj3CNtjYg_giq3aKmQ8gB"
    ),
    "gfl/gfocal_r101_dcnv2_fpn_ms_2x": _drive(
        "gfocal_r101_dcnv2_fpn_ms_2x", "1lJT5jj6mU29fLXHFRmMBIqKi-jZGSlSR"
    ),
    "gfl/gfocal_x101_32x4d_fpn_ms_2x": _drive(
        "gfocal_x101_32x4d_fpn_ms_2x", "1VqlZKmwVYmmQzU1z-qOHiAlToG8wwIOL"
    ),
    "gfl/gfocal_x101_32x4d_dcnv2_fpn_ms_2x": _drive(
        "gfocal_x101_32x4d_dcnv2_fpn_ms_2x", "13W38rPTxvxwmQuDR2DIsTxvGrPhIOOOz"
    ),
    "yolof/yolof_r50_c5_1x": _mmdet_yolof("r50_c5_8x8_1x", "20210425_024427-8e864411", 37.5),
    "yolof/yolof_r50_dc5_1x": _yolof_authors("R_50_DC5_1x"),
    "yolof/yolof_r50_dc5_1x_d2468": None,
    "yolof/yolof_r101_c5_1x": _yolof_authors("R_101_C5_1x"),
    "yolof/yolof_r101_dc5_1x": _yolof_authors("R_101_DC5_1x"),
    "yolof/yolof_x101_64x4d_c5_1x": _yolof_authors("X_101_64x4d_C5_1x"),
    "yolof/yolof_r50_c5_ms_6x": None,
    "yolof/yolof_r101_c5_ms_6x": None,
    "yolof/yolof_x101_64x4d_c5_ms_3x": None,
    "yolof/yolof_x101_64x4d_c5_ms_3x_ms_test": None,
    "yolof/yolof_csp_d53_dc5_3x": _yolof_authors("CSP_D_53_DC5_3x"),
    "yolof/yolof_csp_d53_dc5_9x": _yolof_authors("CSP_D_53_DC5_9x"),
    "yolof/yolof_csp_d53_dc5_9x_ignore075": None,
    "yolof/yolof_csp_d53_dc5_9x_stage2_3x": _yolof_authors("CSP_D_53_DC5_9x_stage2_3x"),
    "yolof/yolof_csp_d53_dc5_swa": None,
    # MMDetection's own
    "foveabox/foveabox_r50_fpn_1x": _mmdet(
        "foveabox", "fovea_r50_fpn_4x4_1x_coco", "20200219-ee4d5303"
    ),
    "reppoints/reppoints_r50_fpn_1x": _mmdet(
        "reppoints", "reppoints_moment_r50_fpn_gn-neck%2Bhead_1x_coco", "20200329-4b38409a"
    ),
    "ssd/ssd512_vgg16": _mmdet("ssd", "ssd512_coco", "20210803_022849-0a47a1ca")._replace(
        pipeline=MMDETECTION_SSD
    ),
    "baselines/retinanet_mmdet_r50_fpn_1x": _mmdet(
        "retinanet", "retinanet_r50_fpn_1x_coco", "20200130-c2398f9e"
    ),
    # the second table of VarifocalNet's README
    **{
        row.config: _by_hand(f"{row.config.partition('/')[2]}.pth", row.weights, MMDETECTION)
        for row in rows("vfnet", "readme-2")
        if row.config is not None
    },
}

ROWS: dict[str, Row] = {
    name: Row(published_ap(name, VAL), published_ap(name, TEST_DEV), weights)
    for name, weights in _WEIGHTS.items()
}
