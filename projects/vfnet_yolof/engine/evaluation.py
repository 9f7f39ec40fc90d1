"""What is measured on a test set, after training and in its course: metrics and losses."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from functools import cached_property
from typing import Any

import torch
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ..config.options import ConfigError
from ..config.own_data import has_test_set
from ..config.parts import built
from ..data.loader import DataLoadingError, check_pictures
from ..modeling.by_size import BySize
from ..modeling.losses.normalizer import local_normalizers
from ..utils.class_names import Classes
from ..utils.state import kept_rng_state
from .classes import check_num_classes, class_lookup, dataset_classes
from .ending import EvaluationStopped
from .failures import agree, is_agreed, together

logger = logging.getLogger(f"detectron2.{__name__}")

Stop = Callable[[], bool]  # whether this process has been asked to stop


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Evaluation:
    """Evaluates models on ``cfg.dataloader.test``; loader and evaluator are built when needed.

    Args:
        cfg: the prepared config.
        classes: those of the models; detections are given to the evaluator by name.
    """

    def __init__(self, cfg: DictConfig, classes: Classes) -> None:
        self.cfg = cfg
        self.classes = classes

    @property
    def has_images(self) -> bool:
        """Whether there are images to evaluate on and an evaluator for them."""
        return "evaluator" in self.cfg.dataloader and has_test_set(self.cfg)

    @cached_property
    def loader(self) -> Any:
        """Batches of this process's share of the test images."""
        return built("dataloader.test", self.cfg.dataloader.test)

    @cached_property
    def class_lookup(self) -> list[int] | None:
        """For each class of the model its index in the test set; None where these are the same.

        Raises:
            ConfigError: the test set has other classes.
        """
        check_num_classes(self.cfg, split="test")
        return class_lookup(self.classes, dataset_classes(self.cfg, split="test"))

    @cached_property
    def evaluator(self) -> Any:
        """That of the config, which gets the test set's class indices."""
        evaluator = built("dataloader.evaluator", self.cfg.dataloader.evaluator)
        if self.class_lookup is None:
            return evaluator
        return EvaluatorByName(evaluator, self.class_lookup)

    def __call__(self, model: nn.Module, *, stop: Stop = never) -> dict[str, Any]:
        """Results as the evaluator gives them, on every process; see :func:`evaluate_on`."""
        if "evaluator" not in self.cfg.dataloader:
            return {}
        return evaluate_on(BySize(model), self.loader, self.evaluator, stop=stop)

    def try_out(self) -> None:
        """Build what an evaluation needs and look at the images, each process at its share.

        Raises:
            ConfigError: the evaluation could not be made; see :func:`check_pictures`.
        """
        _ = self.evaluator
        try:
            check_pictures(self.loader)
        except DataLoadingError as error:
            raise ConfigError(f"dataloader.test: {error}") from error

    def loader_with_ground_truth(self) -> Any:
        """The same images with their annotations, for the validation loss."""
        cfg = OmegaConf.masked_copy(self.cfg, [str(k) for k in self.cfg if k != "model"])
        if OmegaConf.select(cfg, "dataloader.test.mapper.is_train") is not None:
            cfg.dataloader.test.mapper.is_train = True
        return built("dataloader.test", cfg.dataloader.test)


class EvaluatorByName(DatasetEvaluator):
    """Gives an evaluator the detections with the data set's class indices.

    Args:
        evaluator: of the data set.
        lookup: index in the data set of each class of the model, see :func:`class_lookup`.
    """

    def __init__(self, evaluator: DatasetEvaluator, lookup: Sequence[int]) -> None:
        self._evaluator = evaluator
        self._lookup = torch.tensor(lookup)

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        mapped = [{**output, "instances": self._mapped(output["instances"])} for output in outputs]
        self._evaluator.process(inputs, mapped)

    def _mapped(self, instances: Instances) -> Instances:
        found = Instances(instances.image_size, **instances.get_fields())
        classes = instances.pred_classes
        found.pred_classes = self._lookup.to(classes.device)[classes].to(classes.dtype)
        return found

    def evaluate(self) -> Any:
        return self._evaluator.evaluate()


class _Guarded(DatasetEvaluator):
    """Works results out once all processes have made their detections; can be asked to stop."""

    def __init__(self, evaluator: DatasetEvaluator, stop: Stop) -> None:
        self._evaluator, self._stop = evaluator, stop

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        self._evaluator.process(inputs, outputs)
        if self._stop():
            raise EvaluationStopped("the run was asked to stop")

    def evaluate(self) -> Any:
        agree(None)
        return self._evaluator.evaluate()


def evaluate_on(
    model: nn.Module, loader: Any, evaluator: Any, *, stop: Stop = never
) -> dict[str, Any]:
    """Evaluate a model on all processes, all of which call this.

    What fails on one of them is raised on all. The modes of the modules are as before afterwards.

    Args:
        model: batch -> one ``{"instances": Instances}`` per image.
        loader: batches of this process's share of the images.
        evaluator: a ``DatasetEvaluator``, or a list of them.
        stop: asked after each batch.

    Returns:
        Results of the evaluator, the same on every process; {} if it has none.

    Raises:
        EvaluationStopped: ``stop()`` was true on some process.
        Exception: whatever the loader, the model or the evaluator raises.
    """
    if isinstance(evaluator, MutableSequence):
        evaluator = DatasetEvaluators(evaluator)
    results: dict[str, Any] = {}
    with kept_modes(model):
        try:
            results = inference_on_dataset(model, loader, _Guarded(evaluator, stop))
            if comm.is_main_process() and results:
                print_csv_format(results)
        except Exception as error:
            if comm.get_world_size() > 1 and is_agreed(error):
                raise
            agree(error)  # the others are at the next agreement, here or in _Guarded
        agree(None)
    # Only the main process has them; the others decide by them, too.
    return comm.all_gather(results)[0] or {}


@contextlib.contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """All modules train or evaluate as before on leaving, also by an error."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class ValidationLoss:
    """The mean losses on the test images as ``val_loss/<name>``, and their sum.

    The model runs in training mode, where it returns losses, but without gradients and with its
    norm layers in evaluation mode. Modes and random state are put back, so that training goes on
    as if nothing had been measured.

    Args:
        model: returns the model to use, e.g. the averaged one.
        loader: batches with annotations, this process's share of them.
        amp_dtype: autocast as in training; None for float32.
        stop: asked after each batch.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        loader: Iterable[list[dict[str, Any]]],
        amp_dtype: torch.dtype | None = None,
        *,
        stop: Stop = never,
    ) -> None:
        self._model, self._loader, self._amp_dtype = model, loader, amp_dtype
        self._stop = stop

    def __call__(self) -> dict[str, float]:
        """Metrics by their names; see :meth:`compute`."""
        losses = self.compute()
        total = sum(losses.values())
        logger.info("Validation loss: %.4f", total)
        return {**{f"val_loss/{k}": v for k, v in losses.items()}, "val_loss/total_loss": total}

    def compute(self) -> dict[str, float]:
        """Mean of each loss over all images of all processes, all of which call this.

        Raises:
            ConfigError: there are no images.
            Exception: as of :func:`evaluate_on`.
        """
        with kept_rng_state():
            sums = together(lambda: self._sums(self._model()))
        shares = comm.all_gather(sums)
        images = sum(count for _, count in shares)
        if images == 0:
            raise ConfigError("train.val_loss.enabled: the validation set has no images.")
        names = sorted(set().union(*(losses for losses, _ in shares)))
        return {name: sum(x.get(name, 0.0) for x, _ in shares) / images for name in names}

    @torch.no_grad()
    def _sums(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """Sum of each loss over this process's images, and the number of these."""
        sums: dict[str, Tensor] = {}
        count = 0
        device = next(model.parameters()).device.type
        with (
            kept_modes(model),
            local_normalizers(),  # processes have different numbers of batches
            torch.autocast(device, dtype=self._amp_dtype, enabled=self._amp_dtype is not None),
            EventStorage(),  # what the model logs is not about training images
        ):
            _train_all_but_norms(model)
            for batch in self._loader:
                for name, value in model(batch).items():
                    sums[name] = sums.get(name, 0.0) + value.detach().double() * len(batch)
                count += len(batch)
                if self._stop():
                    raise EvaluationStopped("the run was asked to stop")
        return {name: float(value) for name, value in sums.items()}, count


def _train_all_but_norms(model: nn.Module) -> None:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
