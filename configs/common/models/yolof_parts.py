"""Parts of YOLOF's comparisons, each a change of a model."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.assigners import ATSSAssigner, MaxIoUAssigner
from vfnet_yolof.modeling.losses import GIoUBoxLoss

SIDES = (32, 64, 128, 256, 512)


def no_blocks(model):
    """The projector alone in place of the dilated encoder."""
    model.backbone.dilations = []


def max_iou(model):
    """RetinaNet's thresholds in place of uniform matching."""
    model.assigner = L(MaxIoUAssigner)(negative_iou=0.4, positive_iou=0.5, low_quality_matches=True)


def atss(model, topk):
    """ATSS among the anchors in place of uniform matching; ``topk`` counts anchors."""
    model.assigner = L(ATSSAssigner)(topk=topk)


def anchors(model, octaves=1, ratios=(1.0,)):
    """``octaves`` sizes from each of the five sides to twice it, and aspect ratios."""
    model.anchor_generator.sizes = [[x * 2 ** (i / octaves) for x in SIDES for i in range(octaves)]]
    model.anchor_generator.aspect_ratios = list(ratios)
    model.head.num_anchors = len(SIDES) * octaves * len(ratios)


def single_level(model):
    """One output of the encoder, with five square anchors, for RetinaNet's head (section 4.2)."""
    model.anchor_generator.strides = [32]
    model.head_in_features = ["p5"]
    anchors(model)


def dc5(model):
    """The last stage dilates instead of striding, and what goes with it (appendix B).

    The paper keeps the blocks' dilations; those of the authors' code, here, are twice as large.
    """
    model.backbone.bottom_up.res5_dilation = 2
    model.backbone.dilations = [4, 8, 12, 16]
    model.anchor_generator.sizes = [[16, *SIDES]]
    model.anchor_generator.strides = [16]
    model.head.num_anchors = 6
    model.assigner.topk = 8
    model.assigner.min_iou = 0.1


def retinanet_plus(model):
    """RetinaNet with GIoU loss, group norm in the head and implicit objectness (section 5.1)."""
    model.box_loss = L(GIoUBoxLoss)()
    model.head.norm = "GN"
    model.head.implicit_objectness = True
