"""Reading checkpoints of any origin safely, and converting other projects' weights."""

from .convert import (
    convert_checkpoint,
    convert_state_dict,
    find_category_ids,
    find_class_names,
    find_state_dict,
    recognise_layout,
)
from .describe import ModelDescription, describe
from .loading import load_checkpoint
from .rules import (
    CheckpointError,
    CheckpointMismatchError,
    ConversionReport,
    Layout,
    Rule,
    apply_rules,
)

__all__ = [
    "CheckpointError",
    "CheckpointMismatchError",
    "ConversionReport",
    "Layout",
    "ModelDescription",
    "Rule",
    "apply_rules",
    "convert_checkpoint",
    "convert_state_dict",
    "describe",
    "find_category_ids",
    "find_class_names",
    "find_state_dict",
    "load_checkpoint",
    "recognise_layout",
]
