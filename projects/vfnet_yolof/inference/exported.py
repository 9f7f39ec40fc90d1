"""Exported detectors in the place of Detectron2's models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

from ..config.inference import InferenceConfig
from ..runtime import ExportedDetector, Metadata


class ExportedModel(nn.Module):
    """Takes and gives what a detector does in inference; on the CPU.

    Several threads may use one. Pickles and copies open the file again.

    Attributes:
        detector: what runs the file. num_classes: K.
    """

    def __init__(
        self, path: str | os.PathLike[str], trusted: bool = False, threads: int | None = None
    ) -> None:
        """Open the file; arguments and errors as of :class:`.ExportedDetector`."""
        super().__init__()
        self._options = trusted, threads
        self.detector = ExportedDetector(path, trusted=trusted, threads=threads)
        self.num_classes = len(self.detector.metadata.class_names)
        self.eval()

    @property
    def metadata(self) -> Metadata:
        """What the file says about itself."""
        return self.detector.metadata

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """As a detector's, for images of one size."""
        images = np.stack([x["image"].float().numpy() for x in batched_inputs])
        size = (images.shape[2], images.shape[3])
        outputs = []
        for found, inputs in zip(self.detector.run(images), batched_inputs, strict=True):
            instances = Instances(
                size,
                pred_boxes=Boxes(torch.from_numpy(found.boxes.copy())),
                scores=torch.from_numpy(found.scores.copy()),
                pred_classes=torch.from_numpy(found.classes.copy()),
            )
            height, width = inputs.get("height", size[0]), inputs.get("width", size[1])
            outputs.append({"instances": detector_postprocess(instances, height, width)})
        return outputs

    def __reduce__(self) -> tuple[type[ExportedModel], tuple[str, bool, int | None]]:
        return ExportedModel, (self.detector.path, *self._options)

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedModel:
        return ExportedModel(self.detector.path, *self._options)


def exported_config(model: ExportedModel) -> InferenceConfig:
    """What the predictor needs to know of the images, as the file says."""
    metadata = model.metadata
    rule = metadata.resize
    augmentations: list[T.Augmentation] = []
    if rule["kind"] == "fixed":
        augmentations = [T.Resize((rule["height"], rule["width"]))]
    elif rule["kind"] == "shortest_edge":
        augmentations = [T.ResizeShortestEdge(rule["short_edge_length"], rule["max_size"])]
    return InferenceConfig(
        build_model=lambda: model,
        augmentations=T.AugmentationList(augmentations),
        interpolation=metadata.interpolation,
        image_format=metadata.channel_order,
        weights=model.detector.path,
        dataset_name=None,
        name=model.detector.path,
        tested_as={},
    )
