"""Exported detectors, run without PyTorch and Detectron2.

::

    from vfnet_yolof.runtime import ExportedDetector

    detector = ExportedDetector("exported/vfnet.onnx")
    found = detector("street.jpg")    # boxes, scores, classes
    names = [detector.metadata.class_names[i] for i in found.classes]

It needs NumPy, Pillow, and onnxruntime or openvino.
"""

from .candidates import Found
from .detector import ExportedDetector
from .metadata import SUFFIXES, ExportedFileError, Metadata, is_exported

__all__ = ["SUFFIXES", "ExportedDetector", "ExportedFileError", "Found", "Metadata", "is_exported"]
