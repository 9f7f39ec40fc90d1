"""For Detectron2's own tools, and tools that build on them: this project's keys and detectors.

::

    DETECTRON2_ENV_MODULE=vfnet_yolof.detectron2_setup python detectron2/tools/train_net.py \
        --config-file configs/vfnet/vfnet_r50_fpn_1x.yaml

Detectron2 imports the module that this variable names while it is imported itself, and calls its
``setup_environment``. Programs that know nothing of this project then read its ``.yaml`` files.
"""


def setup_environment() -> None:
    """Add this project's keys to what ``get_cfg()`` returns; register its models and the shapes.

    Both imports are late: Detectron2 may load this module from a path, or in the middle of the
    import of ``vfnet_yolof``.
    """
    from detectron2.config.defaults import _C

    import vfnet_yolof.data  # noqa: F401  (registers the shapes)
    from vfnet_yolof.modeling.yacs import add_keys

    add_keys(_C)
