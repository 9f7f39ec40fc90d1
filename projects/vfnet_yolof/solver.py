"""Parameter groups by the rule of the VFNet and GFL references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

_NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,  # every batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_optimizer_params(
    model: nn.Module | None = None,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    bias_lr_factor: float = 2.0,
    weight_decay_bias: float | None = 0.0,
    weight_decay_norm: float | None = None,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters in as few groups of equal (lr, weight decay) as there can be.

    "Biases learn at twice the rate and without decay" spares two kinds of bias in the references'
    implementation, and here: those of norm layers, which follow ``weight_decay_norm`` like the
    layer's weight, and those of the convolutions that predict the offsets of a deformable one
    (modules named ``..._offset``), which are treated as weights.

    Args:
        model: where the parameters are; a parameter used in several places counts once, frozen
            ones are left out.
        base_lr, weight_decay: None leaves the value to the optimizer's default.
        bias_lr_factor: factor on the learning rate of the other biases.
        weight_decay_bias: their weight decay; None means ``weight_decay``.
        weight_decay_norm: weight decay of norm layers; None means ``weight_decay``.
        lr_factors: module path -> factor on the learning rate of all below it; of several paths
            that match, the longest counts.

    Returns:
        groups for a :class:`torch.optim.Optimizer`, in the order of their first parameter.

    Raises:
        ValueError: no model, a factor without ``base_lr``, a path that matches no parameter, or
            a model without trainable parameters.
    """
    if model is None:
        raise ValueError("get_optimizer_params needs a model; set optimizer.params.model")
    factors = dict(lr_factors or {})
    if base_lr is None and (bias_lr_factor != 1.0 or factors):
        raise ValueError("bias_lr_factor and lr_factors need optimizer.params.base_lr")
    groups: dict[tuple[float | None, float | None], list[nn.Parameter]] = {}
    unused = set(factors)
    for name, module, param in _named_parameters(model):
        path = _longest_prefix(name, factors)
        unused.discard(path)
        if not param.requires_grad:
            continue
        factor = factors.get(path, 1.0)
        decay = weight_decay
        if isinstance(module, _NORM_LAYERS):
            decay = weight_decay if weight_decay_norm is None else weight_decay_norm
        elif name.endswith("bias") and not _predicts_offsets(name):
            factor *= bias_lr_factor
            decay = weight_decay if weight_decay_bias is None else weight_decay_bias
        lr = None if base_lr is None else base_lr * factor
        groups.setdefault((lr, decay), []).append(param)
    if unused:
        raise ValueError(f"optimizer.params.lr_factors: no parameter is below {sorted(unused)}")
    if not groups:
        raise ValueError("The model has no trainable parameter: everything is frozen.")
    return [_group(params, lr, decay) for (lr, decay), params in groups.items()]


def _group(params: list[nn.Parameter], lr: float | None, decay: float | None) -> dict[str, Any]:
    options = {"lr": lr, "weight_decay": decay}
    return {"params": params, **{k: v for k, v in options.items() if v is not None}}


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        for name, param in module.named_parameters(recurse=False):
            if param not in seen:
                seen.add(param)
                yield (f"{path}.{name}" if path else name), module, param


def _longest_prefix(name: str, paths: Mapping[str, float]) -> str:
    matching = [p for p in paths if name == p or name.startswith(p + ".")]
    return max(matching, key=len, default="")


def _predicts_offsets(name: str) -> bool:
    return name.rpartition(".")[0].endswith("_offset")
