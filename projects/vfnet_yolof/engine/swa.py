"""Averages of the weights: exponential (EMA), and stochastic (SWA; Izmailov et al., 2018)."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_multi_avg_fn,
    get_swa_multi_avg_fn,
    update_bn,
)

from ..checkpoint.fitting import load_whole
from ..config.options import ConfigError
from ..utils.state import kept_rng_state
from .checkpoints import AVERAGE, AVERAGE_PART, BEST, CheckpointFiles
from .failures import agreed_batches, together
from .trainer import Trainer

logger = logging.getLogger(f"detectron2.{__name__}")

_Tensors = tuple[Tensor, ...] | list[Tensor]
_ROUNDING = 1e-6  # in cycles or iterations: less than one iteration, more than the last digit


class AveragingHook(HookBase):
    """Keeps averaged weights and float buffers beside the model.

    Args:
        model: the one that is trained, without a distributed wrapper.

    Attributes:
        entry: name of the average in checkpoint files.
        updates: how many times the weights have been added to it.
    """

    entry: str

    def __init__(self, model: nn.Module) -> None:
        self.updates = 0
        self._source = model
        self._averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)
        self._averaged.requires_grad_(False)

    def _average(self, averages: _Tensors, current: _Tensors, count: Any) -> None:
        """Update ``averages``, those of ``count`` states before, with ``current``, in place."""
        raise NotImplementedError(f"{type(self).__name__} defines no average")

    @property
    def module(self) -> nn.Module:
        """The model with the averaged weights."""
        return self._averaged.module

    def update(self) -> None:
        """Add the present weights to the average."""
        self._averaged.update_parameters(self._source)
        self.updates += 1

    def checkpoint_entries(self) -> dict[str, Any]:
        """What checkpoint files hold beside the weights: the average, if there is one."""
        return {self.entry: self.module.state_dict()} if self.updates else {}

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Load the average of a run's checkpoint, if it has one."""
        if self.entry in checkpoint:
            load_whole(self.module, checkpoint[self.entry])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self._averaged.n_averaged.fill_(self.updates)


class EMAHook(AveragingHook):
    """Exponential moving average.

    Args:
        model: see :class:`AveragingHook`.
        decay: share of the old average at each iteration.
        warmup: use min(decay, (1 + n) / (10 + n)) after n updates, so that the average forgets the
            first, random weights.
    """

    entry = "ema"

    def __init__(self, model: nn.Module, *, decay: float, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"train.ema.decay={decay}: must be in [0, 1).")
        super().__init__(model)
        self.decay, self.warmup = decay, warmup

    def _average(self, averages: _Tensors, current: _Tensors, count: Any) -> None:
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(averages, current, count)

    def after_step(self) -> None:
        self.update()

    def restore(self, checkpoint: dict[str, Any]) -> None:
        super().restore(checkpoint)
        if self.entry not in checkpoint:
            logger.warning("The checkpoint has no averaged weights: averaging starts now.")


class CyclicCosineParamScheduler(ParamScheduler):
    """``num_cycles`` equal cycles, each a half cosine from ``start_value`` to ``end_value``.

    The last iteration of a cycle is one step short of ``end_value``, the next one starts anew.
    """

    def __init__(
        self, start_value: float = 1.0, end_value: float = 0.01, num_cycles: int = 18
    ) -> None:
        if num_cycles < 1:
            raise ValueError(f"num_cycles must be at least 1, got {num_cycles}")
        self.start_value, self.end_value = start_value, end_value
        self.num_cycles = num_cycles

    def __call__(self, where: float) -> float:
        cycles = where * self.num_cycles
        done = cycles - min(math.floor(cycles + _ROUNDING), self.num_cycles - 1)
        share = (1 + math.cos(math.pi * max(done, 0.0))) / 2
        return self.end_value + (self.start_value - self.end_value) * share


def cycle_ends(max_iter: int, start: float, cycles: int) -> list[int]:
    """After how many iterations each cycle ends; the last one ends with the training.

    Raises:
        ConfigError: ``start`` is not in [0, 1), or the rest of the run has fewer iterations than
            cycles.
    """
    if not 0.0 <= start < 1.0:
        raise ConfigError(f"train.swa.start={start}: must be in [0, 1), a share of the run.")
    ends = [
        math.ceil(max_iter * (start + (1 - start) * k / cycles) - _ROUNDING)
        for k in range(1, cycles + 1)
    ]
    if len({0, *ends}) <= cycles or ends[0] <= max_iter * start:
        raise ConfigError(
            f"train.swa.cycles={cycles}: the {max_iter - ends[0]} iterations left after "
            f"train.swa.start={start} are too few; see train.max_iter."
        )
    return ends


class SWAHook(AveragingHook):
    """The mean of the weights at the ends of several cycles of the learning rate.

    Floating-point buffers such as the statistics of batch norms are averaged like weights; integers
    are those of the last cycle. With ``bn_batches`` the statistics of trained batch norms are
    computed anew at the end.

    At the end of training :class:`.evaluation_hooks.EvaluationRound` has the average written to
    ``model_swa.pth`` and evaluated; its metrics are ``swa/<metric>``.

    Args:
        model: see :class:`AveragingHook`.
        files: checkpoints of the run.
        ends: see :func:`cycle_ends`.
        start: the first iteration of the first cycle. ``fresh_optimizer`` and ``from_best`` also
            act when a run is resumed exactly there.
        fresh_optimizer: begin the first cycle with an optimizer without momentum.
        from_best: begin the first cycle with the weights of ``model_best.pth``.
        keep_parts: write ``model_swa_part_<number>.pth``, the weights at the end of each cycle.
        bn_batches: training batches for the batch norms, on each process; 0: average only.
        evaluate: takes a model and returns the same results on every process.
    """

    entry = "swa"

    def __init__(
        self,
        model: nn.Module,
        files: CheckpointFiles,
        ends: list[int],
        *,
        start: int = 0,
        fresh_optimizer: bool = False,
        from_best: bool = False,
        keep_parts: bool = False,
        bn_batches: int = 0,
        evaluate: Callable[[nn.Module], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(model)
        self._files = files
        self.ends = ends
        self._start, self._fresh_optimizer, self._from_best = start, fresh_optimizer, from_best
        self._keep_parts, self._bn_batches = keep_parts, bn_batches
        self._evaluate = evaluate
        self._final: nn.Module | None = None  # the average as it was written
        self._old_ends: list[int] = []  # ends of the cycles before the run was resumed
        self._past: set[int] = set()  # the same in the iterations of this run
        self._rounding = 0  # iterations that the two may differ by

    def _average(self, averages: _Tensors, current: _Tensors, count: Any) -> None:
        if averages[0].is_floating_point():
            get_swa_multi_avg_fn()(averages, current, count)
        else:
            torch._foreach_copy_(averages, current)

    def before_train(self) -> None:
        expected = self.ends[: len(self._old_ends)]
        if any(abs(a - b) > self._rounding for a, b in zip(self._old_ends, expected, strict=False)):
            logger.warning(
                "The average has the weights after %s iterations; this config would take %s.",
                *(self._old_ends, expected),
            )
        elif self._rounding:
            self._past = set(expected)
            self._add_if_due()  # the run may go on just where a cycle ends

    def before_step(self) -> None:
        if self.trainer.iter != self._start or self._start == 0:
            return
        if self._from_best:
            self._load_best()
        if self._fresh_optimizer:
            self.trainer.optimizer.state.clear()
            logger.info("The cycles of train.swa begin with a fresh optimizer.")

    def _load_best(self) -> None:
        """Load ``model_best.pth`` on the main process, which has it, and send it to the others."""
        state = self._source.state_dict()
        found = self._files.path(BEST).is_file()  # on the main process
        if not comm.all_gather(found)[0]:
            logger.warning(
                "train.swa.from_best: no evaluation has written %s.pth so far; the cycles begin "
                "with the last weights.",
                BEST,
            )
            return
        together(self._read_best if comm.is_main_process() else lambda: None)
        if comm.get_world_size() > 1:
            for value in state.values():
                dist.broadcast(value, src=0)

    def _read_best(self) -> None:
        self._source.load_state_dict(self._files.load(self._files.path(BEST))["model"])
        logger.info("The cycles of train.swa begin with the weights of %s.pth.", BEST)

    def after_step(self) -> None:
        self._add_if_due()

    def _add_if_due(self) -> None:
        done = self.trainer.iterations_done
        if done not in self.ends or done in self._past:
            return
        content = self.trainer.weights()
        self.update()
        logger.info("The average has %d of %d parts", self.updates, len(self.ends))
        if self._keep_parts:
            number = self.ends.index(done) + 1
            self._files.save(AVERAGE_PART.format(number), content, tag=False)

    def write(self) -> None:
        """Write the average as ``model_swa.pth``, at the end of training.

        Raises:
            OutputError: it could not be written.
            DataLoadingError: an image for the batch norms could not be read.
        """
        self._final = None
        if self.updates == 0:
            logger.warning("No cycle was completed: %s.pth is not written.", AVERAGE)
            return
        model = self.module
        if self._bn_batches > 0:
            model = copy.deepcopy(model)  # the average itself is saved as it is
            refresh_batch_norm(model, agreed_batches(self._batches()))
        content = {**self.trainer.weights(), "model": model.state_dict()}
        content.pop("metrics", None)  # of the weights that are averaged
        self._files.save(AVERAGE, {**content, "swa_parts": self.updates}, tag=False)
        self._final = model

    def measure(self) -> dict[str, float]:
        """Metrics of the average that was written, as ``swa/<metric>``; {} if there is none."""
        if self._final is None or self._evaluate is None:
            return {}
        logger.info("Evaluating the average of %d parts", self.updates)
        metrics = flatten_results_dict(self._evaluate(self._final))
        return {f"swa/{name}": value for name, value in metrics.items()}

    def _batches(self) -> Iterator[Any]:
        loader = self.trainer.data_loader
        if hasattr(loader, "set_start_iteration"):
            loader.set_start_iteration(0)  # the same batches, resumed or not
        return itertools.islice(iter(loader), self._bn_batches)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "ends": list(self.ends)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._old_ends = list(state["ends"][: self.updates])

    def move(self, ratio: float) -> None:
        """Scale the ends of cycles when a run is resumed with another batch size."""
        self._old_ends = [round(end * ratio) for end in self._old_ends]
        self._rounding = 1  # cycles of another batch end up to one iteration earlier or later


def build_swa_hook(
    train: DictConfig,
    trainer: Trainer,
    files: CheckpointFiles,
    evaluate: Callable[[nn.Module], dict[str, Any]],
) -> SWAHook:
    """The hook as ``train.swa`` describes it.

    Raises:
        ConfigError: options that contradict each other or the length of the run.
    """
    options = train.swa
    if options.bn_batches < 0:
        raise ConfigError(f"train.swa.bn_batches={options.bn_batches}: must not be negative.")
    start = math.ceil(train.max_iter * options.start - _ROUNDING)
    if start == 0 and (options.fresh_optimizer or options.from_best):
        raise ConfigError(
            "train.swa.fresh_optimizer and train.swa.from_best are about training before "
            "train.swa.start, which is 0: such a run has a new optimizer, and its weights are "
            "those of train.init_checkpoint."
        )
    return SWAHook(
        trainer.bare_model,
        files,
        cycle_ends(train.max_iter, options.start, options.cycles),
        start=start,
        fresh_optimizer=options.fresh_optimizer,
        from_best=options.from_best,
        keep_parts=options.keep_parts,
        bn_batches=options.bn_batches,
        evaluate=evaluate,
    )


def refresh_batch_norm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Compute the running statistics of batch norms anew; frozen ones stay as they are.

    Means and variances are averaged across processes. Random state and the modules' training modes
    are restored.

    Args:
        model: in any mode.
        batches: inputs as in training, those of this process.
    """
    was_training = model.training
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    frozen = {m: copy.deepcopy(m.state_dict()) for m in norms if not m.training}
    if len(frozen) == len(norms):
        logger.warning("train.swa.bn_batches: no batch norm here uses its batch's statistics.")
    else:
        with kept_rng_state(), EventStorage():  # what the model logs is not about training
            update_bn(([batch] for batch in batches), model)  # takes the first of each list
        for norm, state in frozen.items():
            norm.load_state_dict(state)
        for norm in norms:
            if norm not in frozen and comm.get_world_size() > 1:
                for buffer in filter(torch.is_tensor, (norm.running_mean, norm.running_var)):
                    dist.all_reduce(buffer)
                    buffer /= comm.get_world_size()
    model.train(was_training)
