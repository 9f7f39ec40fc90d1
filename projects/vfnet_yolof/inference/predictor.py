"""Detections for images: configuration and weights in, Detectron2 ``Instances`` out."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from ..checkpoint import find_category_ids, load_into, load_record
from ..config.inference import default_device, read_inference_config
from ..config.options import ConfigError
from ..config.read import ConfigSource
from ..config.saved import require_tested_alike
from ..config.yaml_files import Trust
from ..data.transforms import AugInput
from ..drawing.canvas import display_scale, save_image
from ..drawing.visualization import draw_found
from ..engine.named_model import named_model
from ..modeling.by_size import detect_by_size
from ..optimization import optimize
from ..runtime import is_exported
from ..utils.image_arrays import ImageLike, is_one_image, no_image, to_array
from ..utils.processes import require_own_threads
from .choice import FORMAT_OF, Choice, Request, choose
from .exported import ExportedModel, exported_config
from .inputs import class_thresholds, names_of_classes

logger = logging.getLogger(__name__)


class Predictor:
    """Detects objects in arrays, image files and PIL images, alone or in batches.

    ::

        predictor = Predictor("output/vfnet_small/001/model_best.pth")
        instances = predictor("street.jpg")             # pred_boxes, scores, pred_classes
        names = [predictor.class_names[i] for i in instances.pred_classes]
        predictor.draw("street.jpg", instances).show()  # a PIL image
        predictor.save("found.jpg", "street.jpg")       # detected, drawn and written

    The result is a Detectron2 ``Instances``. Libraries that expect the output of a Detectron2 model
    take ``{"instances": instances}``, e.g. ``supervision.Detections.from_detectron2``.

    Several threads may use one predictor at once. Pickles and copies hold the model with its
    weights, so they need neither configuration nor checkpoint and give the same results.
    (With ``optimized`` on a CPU they may differ by rounding, depending on the image sizes seen
    before.) A
    forked process cannot use a predictor that has computed in its parent, see
    :mod:`vfnet_yolof.utils.processes`.

    Attributes:
        model: in evaluation mode.
        cfg: the :class:`InferenceConfig`.
        device: where the model runs.
        class_names: list of K strings, from the checkpoint, else from the configuration's test set.
        category_ids: of the data that the checkpoint was trained on, K of them, or None.
        choice: what computes, and why; see :class:`vfnet_yolof.inference.choice.Choice`.
        metadata: the class names as Detectron2's ``Metadata``, for its ``Visualizer``.
    """

    def __init__(
        self,
        config: ConfigSource,
        weights: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        score_thresh: float = 0.3,
        thresholds: str | os.PathLike[str] | Mapping[str, float] | None = None,
        batch_size: int = 8,
        overrides: Sequence[str] = (),
        use_ema: bool = True,
        optimized: bool = True,
        allow: Sequence[str] = (),
        trust_config: bool = False,
        other_test_settings: bool = False,
        runtime: str = "native",
        measure_runtimes: bool = False,
    ) -> None:
        """Build the model and load its weights.

        Args:
            config: a file that ``vfnet-yolof export`` has written (.onnx, .xml, .pt2), which needs
                no other argument; a checkpoint of this project, which carries its configuration;
                a run's folder,
                which stands for its best or last checkpoint; path or packaged name of a LazyConfig
                or yacs file; or a loaded configuration.
            weights: a checkpoint of this project, or one that the converter knows (file or
                address); by default that of ``config``. It must fill the whole model.
            device: by default CUDA if there is any.
            score_thresh: detections with lower scores are left out. The model's own threshold is
                lowered to it where it is higher; that of an exported file stays, with a warning.
            thresholds: {class name: score} or a JSON file with them, such as the report's, for
                classes that have a threshold of their own.
            batch_size: images that go through the model at once.
            overrides: ``key=value`` changes of the configuration.
            use_ema: take the averaged weights of a training checkpoint that has them.
            optimized: predict with the faster copy that :func:`vfnet_yolof.optimize` makes. If
                False, ``model`` has its original modules and names of weights.
            allow: dotted prefixes of classes and functions that a YAML file ``config`` may name
                beyond the usual ones, see :class:`vfnet_yolof.config.yaml_files.Trust`.
            trust_config: let the YAML file, or the checkpoint's configuration, name anything, i.e.
                run any code.
            other_test_settings: resize and normalize images as ``config`` says, whatever the
                configuration inside of ``weights`` says.
            runtime: what computes: "native", "onnxruntime", "openvino", or "auto" for the one of
                these that is fastest by the rule in docs/export.md; all in float32. Others than
                "native" take an exported file beside the checkpoint, or export one, once.
            measure_runtimes: with "auto", measure on this machine, once, instead of that rule.

        Raises:
            ValueError: no weights are given or named by the configuration, an invalid threshold
                or batch size, or ``config`` tests otherwise than ``weights`` was trained for.
            FileNotFoundError, CheckpointError, CheckpointMismatchError: as of
                :func:`vfnet_yolof.checkpoint.load_into`.
            ConfigError: ``runtime`` is not known, or cannot run this detector.
            RuntimeError: see :func:`vfnet_yolof.utils.processes.require_own_threads`.
        """
        require_own_threads()
        request = Request(runtime, measure_runtimes)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0.0 <= score_thresh <= 1.0:
            raise ValueError(
                f"score_thresh must lie in [0, 1], as scores do (0.5 is 50 %), got {score_thresh}"
            )
        self.score_thresh = score_thresh
        self.batch_size = batch_size
        if is_exported(config):
            if runtime != "native":
                raise ConfigError(f"{config} is an exported detector: its kind says what runs it.")
            held_back = self._open_exported(config, weights, device, overrides, trust_config)
            self._limits = self._class_limits(thresholds)
            self._tell_of_held_back(held_back)
            return
        trust = Trust(tuple(allow), trust_config)
        model = named_model(config) if isinstance(config, str | os.PathLike) else None
        self.cfg = read_inference_config(model.config if model else config, overrides, trust)
        weights = weights or (model and model.weights()) or self.cfg.weights
        if not weights:
            raise ValueError(
                f"{self.cfg.name} names no weights; pass the checkpoint to use (those that are "
                "published for a row of the model zoo: vfnet_yolof.from_zoo)"
            )
        self.device = default_device(device or ("cpu" if runtime in FORMAT_OF else None))
        if not other_test_settings:
            here, source = self.cfg.tested_as, self.cfg.name
            require_tested_alike(here, source, load_record(weights), weights)
        self.model = self.cfg.build_model()
        checkpoint, report = load_into(self.model, weights, averaged=use_ema)
        logger.info("%s: %s", weights, report.description or report.layout)
        self.class_names = names_of_classes(self.model, checkpoint, weights, self.cfg.dataset_name)
        self._limits = self._class_limits(thresholds)
        _lower_threshold(self.model, self._lowest)
        self.model.to(self.device).eval()
        self.category_ids = find_category_ids(checkpoint)
        names = self.class_names, self.category_ids
        self.choice = choose(request, self.model, self.cfg, *names, Path(weights).parent)
        if self.choice.model is not None:
            self.model = self.choice.model
        elif optimized:
            self.model = optimize(self.model)
        self.metadata = Metadata(name="predictor", thing_classes=self.class_names)

    def _open_exported(
        self, path: Any, weights: object, device: object, overrides: Sequence[str], trusted: bool
    ) -> float:
        """Take a file that :func:`.export_detector` has written; returns its score threshold."""
        if weights is not None or overrides:
            raise ValueError(
                f"{path} is an exported detector: it has its weights and settings inside; export "
                "it again to change them"
            )
        if device is not None and torch.device(str(device)).type != "cpu":
            raise ValueError(f"{path} runs on the CPU here, not on {device}")
        self.device = torch.device("cpu")
        self.model = model = ExportedModel(path, trusted)
        self.choice = Choice(Path(path).suffix, "the file's kind", model)
        self.cfg = exported_config(model)
        self.class_names = list(model.metadata.class_names)
        self.category_ids = model.metadata.category_ids
        self.metadata = Metadata(name="predictor", thing_classes=self.class_names)
        return model.metadata.score_thresh

    def __call__(
        self, images: ImageLike | Iterable[ImageLike], *, input_format: str = "BGR"
    ) -> Instances | list[Instances]:
        """Detect in one image, or in each of an iterable (or an (N, H, W, 3) array) of them.

        Images of a batch that have the same size when padded go through the model together; the
        result for an image does not depend on the others in its batch.

        Args:
            images: (H, W, 3) or (H, W) uint8 arrays; paths; PIL images.
            input_format: channel order of the arrays: "BGR" as OpenCV and Detectron2 have it, or
                "RGB".

        Returns:
            ``Instances`` on the CPU for one image, a list of them for several: ``pred_boxes`` in
            pixels of the given image, ``scores`` in descending order, ``pred_classes``.

        Raises:
            ValueError, TypeError: naming what is wrong with an image.
            FileNotFoundError, ImageReadError: a file that is not there or cannot be read.
            RuntimeError: in a forked process, see :mod:`vfnet_yolof.utils.processes`.
        """
        return self._detect(images, input_format)

    def _detect(
        self,
        images: ImageLike | Iterable[ImageLike],
        input_format: str,
        fields: Sequence[str] = (),
    ) -> Instances | list[Instances]:
        """Like ``__call__``, with the given extra fields."""
        if input_format not in ("RGB", "BGR"):
            raise ValueError(f"input_format must be RGB or BGR, got {input_format!r}")
        if is_one_image(images):
            return next(self._stream([images], input_format, fields))
        if not isinstance(images, Iterable) or isinstance(images, bytes):
            raise no_image(images)
        return list(self._stream(images, input_format, fields))

    def stream(
        self, images: Iterable[ImageLike], *, input_format: str = "BGR"
    ) -> Iterator[Instances]:
        """Results one by one; no more than ``batch_size`` images are held at a time.

        Images are read as results are consumed; closing the stream stops the reading. Do not share
        a stream or a generator of images between threads.

        Raises:
            ValueError, TypeError: at once, if ``images`` is a single one or ``input_format``
                unknown; else as calling the predictor.
        """
        if input_format not in ("RGB", "BGR"):
            raise ValueError(f"input_format must be RGB or BGR, got {input_format!r}")
        if is_one_image(images):
            raise TypeError("stream takes several images, in a list or another iterable")
        return self._stream(images, input_format)

    def _stream(
        self, images: Iterable[ImageLike], input_format: str, fields: Sequence[str] = ()
    ) -> Iterator[Instances]:
        batch: list[ImageLike] = []
        for image in images:
            batch.append(image)
            if len(batch) == self.batch_size:
                yield from self._predict(batch, input_format, fields)
                batch = []
        if batch:
            yield from self._predict(batch, input_format, fields)

    def predict_star(
        self, images: ImageLike | Iterable[ImageLike], *, input_format: str = "BGR"
    ) -> Instances | list[Instances]:
        """Detections with VFNet's intermediate results (VarifocalNet, figures 1 and 3).

        Adds ``init_boxes`` (Boxes), the boxes before refinement, and ``star_points`` (P, 9, 2), the
        (x, y) of the sampling points. Both in pixels of the given image. Raises TypeError for other
        models.
        """
        if "star" not in self.extra_fields:
            raise TypeError(f"{type(self.model).__name__} has no star points; VFNet has")
        return self._detect(images, input_format, ("star",))

    def predict_distributions(
        self, images: ImageLike | Iterable[ImageLike], *, input_format: str = "BGR"
    ) -> Instances | list[Instances]:
        """Detections with the predicted distribution of each box side (GFL, section 3).

        Adds for the left, top, right and bottom side of each box, in pixels of the given image,
        ``side_mean`` and ``side_std`` (P, 4), the distance from ``side_points`` (P, 2) and its
        uncertainty; ``side_entropy`` (P, 4) in nats; and of general distributions
        ``side_probabilities`` (P, 4, bins) with ``side_intervals`` (P, 4) between the bins. Raises
        TypeError for other models.
        """
        if "distributions" not in self.extra_fields:
            raise TypeError(
                f"{type(self.model).__name__} has no distributions of box sides; GFL has, unless "
                "its sides are Dirac deltas"
            )
        return self._detect(images, input_format, ("distributions",))

    def draw(
        self, image: ImageLike, instances: Instances | None = None, *, input_format: str = "BGR"
    ) -> Image.Image:
        """The image with boxes, class names and scores, for people to look at.

        A small image is enlarged by a whole number, until its shorter side has 480 px, so that the
        labels do not cover it. What :meth:`predict_star` and :meth:`predict_distributions` add is
        drawn, too. For the same size, other thresholds or line widths, see
        :func:`vfnet_yolof.drawing.visualization.draw_instances`.

        Args:
            image: one, as calling the predictor takes it.
            instances: what was found in it; by default it is detected now.
            input_format: channel order of an array: "BGR" or "RGB".

        Raises:
            ValueError, TypeError, FileNotFoundError, ImageReadError: as calling the predictor.
        """
        if input_format not in ("RGB", "BGR"):
            raise ValueError(f"input_format must be RGB or BGR, got {input_format!r}")
        array = to_array(image, "RGB", input_format)
        if instances is None:
            instances = next(self._stream([array], "RGB"))
        scale = display_scale(*array.shape[:2])
        return Image.fromarray(draw_found(array, instances, self.class_names, scale=scale))

    def save(
        self,
        path: str | os.PathLike[str],
        image: ImageLike,
        instances: Instances | None = None,
        *,
        input_format: str = "BGR",
    ) -> None:
        """Write what :meth:`draw` gives to ``path``, in the format of its suffix.

        Raises:
            ValueError: a suffix of no format; moreover as :meth:`draw`.
            FileWriteError: the file cannot be written.
        """
        save_image(self.draw(image, instances, input_format=input_format), path)

    @property
    def extra_fields(self) -> tuple[str, ...]:
        """Names of what the model can add to its detections, e.g. ``("star",)`` of VFNet."""
        return tuple(getattr(self.model, "extra_fields", ()))

    def _predict(
        self, images: Sequence[ImageLike], input_format: str, fields: Sequence[str]
    ) -> list[Instances]:
        inputs = [self._to_input(image, input_format) for image in images]
        if self.device.type == "cpu":  # of others torch says itself that a fork cannot use them
            require_own_threads()
        with torch.inference_mode():
            outputs = detect_by_size(self.model, inputs, fields)
        # Selecting outside of inference mode gives tensors that may be changed in place.
        results = [output["instances"].to("cpu") for output in outputs]
        if self._limits is None:
            return [found[found.scores >= self.score_thresh] for found in results]
        return [found[found.scores >= self._limits[found.pred_classes]] for found in results]

    def _class_limits(
        self, thresholds: str | os.PathLike[str] | Mapping[str, float] | None
    ) -> torch.Tensor | None:
        """(K,) float32, the score from which a detection of each class is given; None: of all."""
        if thresholds is None:
            return None
        own = class_thresholds(thresholds, self.class_names)
        return torch.tensor([own.get(name, self.score_thresh) for name in self.class_names])

    @property
    def _lowest(self) -> float:
        """The score from which a detection of some class is given."""
        return self.score_thresh if self._limits is None else float(self._limits.min())

    def _tell_of_held_back(self, held_back: float) -> None:
        """An exported file has its threshold inside, which cannot be lowered here."""
        if self._lowest < held_back - 1e-6:  # thresholds of classes are float32
            logger.warning(
                "%s gives nothing that scores below %g, its own threshold, though %g was asked "
                "for: export it again with model.postprocessor.score_thresh=%g to have more.",
                *(self.cfg.name, held_back, self._lowest, self._lowest),
            )

    def _to_input(self, image: ImageLike, input_format: str) -> dict[str, Any]:
        array = to_array(image, self.cfg.image_format, input_format)
        aug_input = AugInput(array, interpolation=self.cfg.interpolation)
        self.cfg.augmentations(aug_input)
        tensor = torch.as_tensor(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": array.shape[0], "width": array.shape[1]}

    def __getstate__(self) -> dict[str, Any]:
        # What builds the model may be code of a configuration file, which pickles cannot hold.
        return {**self.__dict__, "cfg": dataclasses.replace(self.cfg, build_model=_not_kept)}


def _lower_threshold(model: nn.Module, score_thresh: float) -> None:
    """Let a detector give what scores ``score_thresh``, which its own threshold may hold back."""
    postprocessor = getattr(model, "postprocessor", None)
    if postprocessor is not None:
        postprocessor.score_thresh = min(postprocessor.score_thresh, score_thresh)


def _not_kept() -> nn.Module:
    raise RuntimeError("a copied or unpickled predictor has its model, but not what built it")
