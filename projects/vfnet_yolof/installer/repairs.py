"""What is changed in Detectron2 0.6 so that it runs on today's Python, PyTorch, NumPy and Pillow.

Data only: :mod:`.install` applies it. Each :class:`Repair` names the exact text it replaces
and how often that text must occur, so that an archive which is not the expected one is refused
rather than half repaired.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Repair:
    """One exact-match replacement.

    path: file inside the source archive, with forward slashes.
    old, new: the text to find and the text to put in its place.
    count: how many times `old` must occur in the file, no more and no fewer.
    reason: what fails without it.
    """

    path: str
    old: str
    new: str
    reason: str
    count: int = 1


_NUMPY_ALIASES = "NumPy 1.24 removed the aliases of Python's own types"
_PKL = "detectron2/checkpoint/detection_checkpoint.py"
_PKL_REASON = "unpickling a .pkl file runs whatever code it holds: only numbers are built from it"
_ARRAY_UNPICKLER = '''

def _number_type(code, *flags):
    code = code.decode("ascii") if isinstance(code, bytes) else str(code)
    if len(code) > 3 or code[:1] not in ("b", "i", "u", "f"):
        raise pickle.UnpicklingError("an array of something else than numbers")
    return np.dtype(code, *flags)


def _latin1(text, encoding="latin1"):
    return text.encode("latin1")  # how Python 3 writes bytes in protocol 2


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the arrays of model files, and calls nothing else that a file may name."""

    def find_class(self, module, name):
        if (module, name) == ("numpy", "dtype"):
            return _number_type
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        arrays = ("numpy.core.multiarray", "numpy._core.multiarray")
        if (module, name) in (("numpy", "ndarray"), ("collections", "OrderedDict")) or (
            module in arrays and name == "_reconstruct"
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"the file names {module}.{name}, which no model file needs: it could run code"
        )
'''

REPAIRS: tuple[Repair, ...] = (
    Repair(
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR,",
        "interp=Image.BILINEAR,",
        "Pillow 10 removed Image.LINEAR, so importing detectron2.data fails",
    ),
    Repair("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n", _NUMPY_ALIASES),
    Repair("detectron2/data/build.py", "dtype=np.int)", "dtype=int)", _NUMPY_ALIASES),
    Repair(
        "detectron2/data/benchmark.py",
        'interpolation="nearest"',
        'method="nearest"',
        "NumPy 2.4 removed this name of the argument, so tools/benchmark.py --task data fails",
    ),
    Repair("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)", _NUMPY_ALIASES),
    Repair(
        "detectron2/structures/masks.py",
        ".astype(np.bool)",
        ".astype(bool)",
        _NUMPY_ALIASES,
        count=2,
    ),
    Repair("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)", _NUMPY_ALIASES),
    Repair(
        "detectron2/evaluation/pascal_voc_evaluation.py",
        ".astype(np.bool)",
        ".astype(bool)",
        _NUMPY_ALIASES,
        count=2,
    ),
    Repair(
        "detectron2/evaluation/sem_seg_evaluation.py",
        "dtype=np.int)",
        "dtype=int)",
        _NUMPY_ALIASES,
        count=2,
    ),
    Repair(
        "detectron2/evaluation/sem_seg_evaluation.py",
        "dtype=np.float)",
        "dtype=float)",
        _NUMPY_ALIASES,
        count=2,
    ),
    Repair(
        "detectron2/evaluation/sem_seg_evaluation.py",
        ".astype(np.float)",
        ".astype(float)",
        _NUMPY_ALIASES,
        count=3,
    ),
    Repair(
        "detectron2/utils/visualizer.py",
        ".astype(np.bool)",
        ".astype(bool)",
        _NUMPY_ALIASES,
        count=3,
    ),
    Repair(
        "detectron2/utils/video_visualizer.py",
        "dtype=np.bool)",
        "dtype=bool)",
        _NUMPY_ALIASES,
    ),
    Repair(
        "detectron2/layers/mask_ops.py",
        "np.array(mask, copy=False)",
        "np.asarray(mask)",
        "NumPy 2 raises where copy=False would have to copy",
    ),
    Repair(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)[0]",
        "self._rng.choice(sorted(self._fallback_candidates))",
        "Python 3.11 no longer draws samples from a set",
    ),
    Repair(
        "detectron2/model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "",
        "setuptools 81 removed pkg_resources",
    ),
    Repair(
        "detectron2/model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )",
        "os.path.join(\n"
        '        os.path.dirname(os.path.abspath(__file__)), "configs", config_path\n'
        "    )",
        "setuptools 81 removed pkg_resources",
    ),
    Repair(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        "PyTorch warns at each start that it will require the indexing argument",
    ),
    Repair(
        "detectron2/modeling/meta_arch/retinanet.py",
        "get_norm(norm, 1)",
        "get_norm(norm, 32)",
        "a group norm of 32 groups cannot be built for one channel",
    ),
    Repair(
        "detectron2/modeling/meta_arch/fcos.py",
        "            gt_centers = gt_per_image.gt_boxes.get_centers()  # Nx2\n",
        "            if len(gt_per_image) == 0:\n"
        "                matched_indices.append(\n"
        "                    torch.full_like(anchor_sizes, -1, dtype=torch.int64)\n"
        "                )\n"
        "                continue\n"
        "            gt_centers = gt_per_image.gt_boxes.get_centers()  # Nx2\n",
        "an image without boxes has no best match: max() over an empty dimension raises",
    ),
    Repair(
        "detectron2/modeling/meta_arch/fcos.py",
        "            label = gt_per_image.gt_classes[gt_index.clip(min=0)]\n",
        "            if len(gt_per_image) == 0:\n"
        "                matched_labels.append(torch.full_like(gt_index, self.num_classes))\n"
        "                matched_boxes.append(\n"
        "                    Boxes(gt_per_image.gt_boxes.tensor.new_zeros(len(gt_index), 4))\n"
        "                )\n"
        "                continue\n"
        "            label = gt_per_image.gt_classes[gt_index.clip(min=0)]\n",
        "the labels of an image without boxes cannot be looked up by index",
    ),
    Repair(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "from detectron2 import _C\n",
        "the compiled COCO evaluation is not part of this installation",
    ),
    Repair(
        "detectron2/evaluation/coco_evaluation.py",
        "from .evaluator import DatasetEvaluator\n",
        "from .evaluator import DatasetEvaluator\n"
        "\n"
        'if getattr(_C, "IS_STAND_IN", False):\n'
        "    COCOeval_opt = COCOeval\n"
        "else:\n"
        "    from .fast_eval_api import COCOeval_opt\n",
        "the compiled COCO evaluation is not part of this installation: pycocotools does the work",
    ),
    Repair(
        "detectron2/evaluation/coco_evaluation.py",
        "        self._use_fast_impl = use_fast_impl\n",
        "        self._use_fast_impl = use_fast_impl and COCOeval_opt is not COCOeval\n",
        "the log must name the implementation that really ran",
    ),
    Repair(
        "detectron2/layers/nms.py",
        "    return torch.ops.detectron2.nms_rotated(boxes, scores, iou_threshold)\n",
        "    from detectron2 import _C\n"
        "\n"
        '    if getattr(_C, "IS_STAND_IN", False):\n'
        "        return _C.nms_rotated(boxes, scores, iou_threshold)\n"
        "    return torch.ops.detectron2.nms_rotated(boxes, scores, iou_threshold)\n",
        "the compiled operator is not part of this installation: the error has to say so",
    ),
    Repair(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n"
        "    from caffe2.python import core as _caffe2  # noqa: F401\n"
        "except ImportError:\n"
        "    pass\n"
        "else:\n"
        "    from .api import *\n",
        "PyTorch no longer contains caffe2, so TracingAdapter could not be imported",
    ),
    Repair(
        _PKL,
        "from .c2_model_loading import align_and_update_state_dicts\n",
        "from .c2_model_loading import align_and_update_state_dicts\n" + _ARRAY_UNPICKLER,
        _PKL_REASON,
    ),
    Repair(_PKL, "import torch\n", "import numpy as np\nimport torch\n", _PKL_REASON),
    Repair(
        _PKL,
        'data = pickle.load(f, encoding="latin1")\n',
        'data = _ArrayUnpickler(f, encoding="latin1").load()\n',
        _PKL_REASON,
    ),
    Repair(
        _PKL,
        "data = torch.load(f)\n",
        "data = torch.load(f, weights_only=True)\n",
        "before PyTorch 2.6 reading a .pyth file runs whatever code it holds",
    ),
)

STAND_IN_PATH = "detectron2/_C.py"

STAND_IN = '''\
"""Stands in for Detectron2's compiled operators, which this installation does not have.

Everything that runs on PyTorch and torchvision alone works. What needs one of the operators raises
:class:`MissingKernelError` when it is called, not when Detectron2 is imported.
"""

IS_STAND_IN = True
REPAIRS = "{fingerprint}"  # of the repairs made to this installation


class MissingKernelError(RuntimeError):
    """A compiled operator of Detectron2 was called in an installation without them."""


def get_compiler_version():
    return "none (installed without compiled operators)"


def get_cuda_version():
    return "none (installed without compiled operators)"


def has_cuda():
    return False


def _missing(name):
    def kernel(*args, **kwargs):
        raise MissingKernelError(
            f"detectron2._C.{name} is a compiled operator, and this Detectron2 was installed "
            "without them. Use a path that needs none (torchvision has box NMS, RoIAlign and "
            "deformable convolution), or build Detectron2 from its repository."
        )

    kernel.__name__ = kernel.__qualname__ = name
    return kernel


COCOevalAccumulate = _missing("COCOevalAccumulate")
COCOevalEvaluateImages = _missing("COCOevalEvaluateImages")
InstanceAnnotation = _missing("InstanceAnnotation")
box_iou_rotated = _missing("box_iou_rotated")
deform_conv_backward_filter = _missing("deform_conv_backward_filter")
deform_conv_backward_input = _missing("deform_conv_backward_input")
deform_conv_forward = _missing("deform_conv_forward")
modulated_deform_conv_backward = _missing("modulated_deform_conv_backward")
modulated_deform_conv_forward = _missing("modulated_deform_conv_forward")
nms_rotated = _missing("nms_rotated")
roi_align_rotated_backward = _missing("roi_align_rotated_backward")
roi_align_rotated_forward = _missing("roi_align_rotated_forward")
'''

PYPROJECT_PATH = "pyproject.toml"

# The requirements are upstream's, less `black` (never imported), `future` and `pydot` (for caffe2
# alone), and the upper bounds that keep fvcore and iopath from running on a current Python.
PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "0.6"
description = "Detectron2 0.6, repaired for current Python packages, without compiled operators"
requires-python = ">=3.10"
dependencies = [
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "setuptools",  # torch.utils.cpp_extension, which collect_env_info reads
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
]

[tool.setuptools.packages.find]
include = ["detectron2*"]

[tool.setuptools.package-data]
"detectron2.model_zoo.configs" = ["**/*.py", "**/*.yaml"]
"""
