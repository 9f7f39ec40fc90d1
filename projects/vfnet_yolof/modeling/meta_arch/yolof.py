"""You Only Look One-level Feature."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY

from .anchor_detector import AnchorDetector


@META_ARCH_REGISTRY.register()
class YOLOF(AnchorDetector):
    """One feature map, dilated encoder and uniform matching (YOLOF, section 4.3).

    Args:
        **kwargs: see :class:`AnchorDetector`.
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Constructor arguments from yacs keys, see :mod:`vfnet_yolof.modeling.yacs`."""
        from ..yacs import yolof_arguments

        return yolof_arguments(cfg)
