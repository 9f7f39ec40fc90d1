"""Reading checkpoints of any origin safely, and converting other projects' weights."""

from .convert import (
    convert_checkpoint,
    convert_state_dict,
    find_category_ids,
    find_class_names,
    load_into,
    recognise_layout,
)
from .describe import ModelDescription, describe
from .loading import load_checkpoint, load_record
from .rules import (
    CheckpointError,
    CheckpointMismatchError,
    ConversionReport,
    Layout,
    Rule,
    apply_rules,
)
from .tensors import Weights, find_weights

__all__ = [
    "CheckpointError",
    "CheckpointMismatchError",
    "ConversionReport",
    "Layout",
    "ModelDescription",
    "Rule",
    "Weights",
    "apply_rules",
    "convert_checkpoint",
    "convert_state_dict",
    "describe",
    "find_category_ids",
    "find_class_names",
    "find_weights",
    "load_checkpoint",
    "load_into",
    "load_record",
    "recognise_layout",
]
