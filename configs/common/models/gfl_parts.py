"""Parts of GFL's comparisons, each a change of a GFL model."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.assigners import FCOSAssigner
from vfnet_yolof.modeling.losses import FocalLoss, GuidedFocalLoss
from vfnet_yolof.modeling.meta_arch import EqualQuality, GFocal
from vfnet_yolof.modeling.points import PixelIndexPoints
from vfnet_yolof.modeling.representations import DiracDelta


def first_release(model):
    """Boxes as in the authors' first release, for its weights: see ``meta_arch/gfocal.py``."""
    model._target_ = GFocal
    model.points = L(PixelIndexPoints)(strides=model.points.strides, octave_base_scale=8.0)
    model.postprocessor.candidates = "location"


def dirac_delta(model):
    """One number for each side, in place of a distribution."""
    model.head.representation = L(DiracDelta)(unit=1.0)
    model.dfl_weight = 0.0


def no_quality(model):
    """Hard labels; nothing represents how good a box is, so all boxes weigh the same."""
    model.cls_loss = L(FocalLoss)(alpha=0.25, gamma=2.0)
    model.box_quality = L(EqualQuality)()


def quality_branch(model, measure):
    """Hard labels, and a branch that learns ``measure``, which weighs the boxes as well."""
    model.cls_loss = L(FocalLoss)(alpha=0.25, gamma=2.0)
    model.box_quality = L(measure)()
    model.head.quality = True
    model.quality = L(measure)()


def guided(model, measure):
    """Hard labels whose loss ``measure`` weighs; it weighs the boxes as well."""
    model.cls_loss = L(GuidedFocalLoss)(alpha=0.25, gamma=2.0, eta=1.5)
    model.cls_quality = L(measure)()
    model.box_quality = L(measure)()


def fcos_regions(model):
    """FCOS's region rule with centre sampling instead of ATSS; points on the cells' centres.

    For any detector with one box for each location.
    """
    model.points.offset = FCOSAssigner.point_offset
    model.assigner = L(FCOSAssigner)(
        strides="${..points.strides}", center_radius=FCOSAssigner.usual_radius
    )
