"""The blocks of a built detector and what flows between them, as its forward pass shows them.

Nothing here knows a detector: the image goes through the model without data, and every tensor
remembers the blocks that it comes from. So the diagram of a detector with another head or neck is
right without a line for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers.conv import ConvNormAct
from ..layers.deform_conv import DeformConv2d, ModulatedDeformConvPack
from ..layers.star_conv import StarConv2d
from ..modeling.necks.dilated_encoder import DilatedBlock
from .cost import empty_image, innermost, without_data

BACKBONE, NECK, HEAD = "backbone", "neck", "head"
_JOINS = {torch.ops.aten.add.Tensor: "+", torch.ops.aten.mul.Tensor: "×"}


@dataclass
class Block:
    """A part of the network that is drawn as one box.

    Attributes:
        name: of its module, or of what it stands for.
        part: "backbone", "neck" or "head".
        lines: what the box says. A sum or product has a single sign.
        shapes: (channels, height, width) of its output, of each call: of each level, finest first.
        sources: the blocks whose outputs it takes; in the order in which they ran.
        repeats: so many alike of them, one after the other.
    """

    name: str
    part: str
    lines: list[str]
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    sources: dict[str, None] = field(default_factory=dict)
    repeats: int = 1

    @property
    def is_join(self) -> bool:
        return self.lines[0] in _JOINS.values()


@dataclass
class Architecture:
    """A detector as a graph; names are the keys of ``blocks``, in the order of computation.

    Attributes:
        image: (height, width) of the padded image, px.
        blocks: by name.
        levels: of each feature map that goes to the head, finest first: its name, the block that
            makes it, and (channels, height, width).
        outputs: of each kind of predictions: its name, the blocks that make it, and its channels
            on the finest level.
    """

    image: tuple[int, int]
    blocks: dict[str, Block]
    levels: list[tuple[str, str, tuple[int, ...]]]
    outputs: list[tuple[str, list[str], int]]

    def as_dict(self) -> dict[str, Any]:
        """The graph, as JSON can hold it."""
        blocks = [{**asdict(block), "sources": [*block.sources]} for block in self.blocks.values()]
        levels = [{"name": x, "block": made, "shape": shape} for x, made, shape in self.levels]
        outputs = [
            {"name": x, "blocks": made, "channels": count} for x, made, count in self.outputs
        ]
        return {"image": self.image, "blocks": blocks, "levels": levels, "outputs": outputs}

    def part(self, name: str) -> dict[str, Block]:
        return {key: block for key, block in self.blocks.items() if block.part == name}


def architecture_of(model: nn.Module, size: tuple[int, int]) -> Architecture:
    """Follow one image through a detector.

    Args:
        model: as of :func:`.cost.count`; it is not changed. size: (height, width) of the image, px.

    Raises:
        ValueError: the size is not positive. TypeError: the model is no such detector.
    """
    if min(size) < 1:
        raise ValueError(f"size must be positive (height, width), got {tuple(size)}")
    if not isinstance(model, DenseDetector):
        raise TypeError(
            f"only detectors with backbone and head can be drawn, not {type(model).__name__}"
        )
    tracer = _Tracer()
    blocks = {
        **_blocks(innermost(model.backbone), BACKBONE, "backbone."),
        **_blocks(model.backbone, NECK, "neck."),
        **_blocks(model.head, HEAD, "head."),
    }
    with tracer.watching(blocks), without_data(model), tracer:
        image = empty_image(model, size)
        maps = model.backbone(image)
        levels = [
            (name, tracer.maker(maps[name]), tuple(maps[name].shape[1:]))
            for name in model.head_in_features
        ]
        tracer.part = HEAD
        predictions = model.head(
            [tracer.level(name, maps[name]) for name in model.head_in_features]
        )
    found = {name: tensors for name, tensors in _named(predictions).items() if tensors}
    outputs = [
        (name, [*tracer.sources(tensors)], tensors[0].shape[1]) for name, tensors in found.items()
    ]
    height, width = image.shape[-2:]
    graph = Architecture((height, width), tracer.blocks, levels, outputs)
    _merge_levels(graph)
    _merge_repeats(graph)
    return graph


class _Tracer(TorchDispatchMode):
    """Lets tensors remember the blocks that they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[str, Block] = {}
        self.part = NECK
        self._origin: dict[int, dict[str, None]] = {}
        self._kept: list[Tensor] = []  # as long as they live, no other tensor has their ids
        self._inside = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sign = _JOINS.get(func)
        if sign and not self._inside and self._joins(args):
            sources = self.sources(args)
            name = f"{self.part} {f' {sign} '.join(sources)}"  # the same one on each level
            self.blocks.setdefault(name, Block(name, self.part, [sign], sources=sources))
            self._made(name, result)
        else:
            self._remember(result, self.sources((args, kwargs)))
        return result

    def _joins(self, args: Sequence[Any]) -> bool:
        """Whether two feature maps of different origin come together."""
        maps = [x for x in args[:2] if isinstance(x, Tensor) and x.dim() == 4]
        origins = [self._origin.get(id(x)) for x in maps]
        return len(maps) == 2 and all(origins) and origins[0] != origins[1]

    def sources(self, values: Any) -> dict[str, None]:
        """The blocks that made tensors."""
        tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor)]
        found: dict[str, None] = {}
        for x in tensors:
            found.update(self._origin.get(id(x), {}))
        return found

    def maker(self, feature: Tensor) -> str:
        """The last block that a feature map comes from."""
        return [*self.sources(feature)][-1]

    def level(self, name: str, feature: Tensor) -> Tensor:
        """The feature map as the head takes it, whatever made it."""
        taken = feature.detach()
        shape = "×".join(map(str, feature.shape[1:]))
        self.blocks[name] = Block(name, HEAD, [name, shape])
        self._made(name, taken)
        return taken

    def _remember(self, values: Any, sources: dict[str, None]) -> None:
        if not sources:
            return
        for x in tree_leaves(values):
            if isinstance(x, Tensor):
                self._origin[id(x)] = sources
                self._kept.append(x)

    def _made(self, name: str, values: Any) -> None:
        self._remember(values, {name: None})
        maps = [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.dim() == 4]
        self.blocks[name].shapes += [tuple(x.shape[1:]) for x in maps]

    @contextmanager
    def watching(self, modules: Mapping[nn.Module, Block]) -> Iterator[None]:
        """Record the calls of these modules."""
        handles = []
        for module, block in modules.items():
            before, after = self._hooks(block)
            handles += [
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, block: Block) -> tuple[Any, Any]:
        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.blocks.setdefault(block.name, block)
            block.sources.update(self.sources((args, kwargs)))
            self._inside += 1

        def after(_: nn.Module, __: Any, output: Any) -> None:
            self._inside -= 1
            self._made(block.name, output)

        return before, after


def _blocks(module: nn.Module, part: str, prefix: str) -> dict[nn.Module, Block]:
    """The parts of a module that are boxes, in the order of definition."""
    found: dict[nn.Module, Block] = {}
    for name, child in module.named_children():
        if name == "bottom_up":  # the body of a neck, which has blocks of its own
            continue
        path = prefix + name
        if part == BACKBONE:
            if any(x.dim() == 4 for x in child.parameters()):
                found[child] = Block(path, part, _stage_lines(name, child))
        elif _is_block(child):
            tower = path.split(".")[-2]  # the blocks of a sequence have its name
            own = tower if name.isdecimal() else name
            found[child] = Block(path, part, [own, *_block_lines(child)])
        else:
            found.update(_blocks(child, part, f"{path}."))
    return found


def _is_block(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    has_kernel = isinstance(weight, Tensor) and weight.dim() == 4
    return has_kernel or isinstance(module, ConvNormAct | DilatedBlock)


def _stage_lines(name: str, stage: nn.Module) -> list[str]:
    if _is_block(stage):
        return _block_lines(stage)[:1]
    if not isinstance(stage, nn.Sequential):
        return [name]
    *_, last = stage.children()
    deformable = any(isinstance(x, DeformConv2d) for x in stage.modules())
    return [name, f"{len(stage)} × {'DCN ' if deformable else ''}{type(last).__name__}"]


def _block_lines(block: nn.Module) -> list[str]:
    """What is drawn in a box, a line each."""
    if isinstance(block, DilatedBlock):
        wide = block.conv2
        inner = f"{_kernel(block.conv1)} {_kernel(wide)} {_kernel(block.conv3)}"
        width = f"{wide.in_channels} inside{', shortcut' if block.shortcut else ''}"
        return [f"{inner}, dilation {wide.dilation[0]}", width]
    conv: Any = block.conv if isinstance(block, ConvNormAct) else block
    lines = [f"{_kernel(conv)} {_kind(conv)}"]
    if tuple(conv.stride) != (1, 1):
        lines[0] += f", stride {conv.stride[0]}"
    if tuple(conv.dilation) != (1, 1):
        lines[0] += f", dilation {conv.dilation[0]}"
    named = [getattr(block, x, None) for x in ("norm", "activation")]
    beside = [_NAMES.get(type(x).__name__, type(x).__name__) for x in named if x is not None]
    return [*lines, ", ".join([str(conv.out_channels), *beside])]


_NAMES = {"GroupNorm": "GN", "BatchNorm2d": "BN", "FrozenBatchNorm2d": "frozen BN"}


def _kernel(conv: Any) -> str:
    return "×".join(map(str, conv.kernel_size))


def _kind(conv: nn.Module) -> str:
    if isinstance(conv, StarConv2d):
        return "star conv"
    if isinstance(conv, ModulatedDeformConvPack):
        return "DCNv2"
    return "deform. conv" if isinstance(conv, DeformConv2d) else "conv"


def _named(predictions: Any) -> dict[str, list[Tensor]]:
    """The maps of each kind of predictions, a level each."""
    if hasattr(predictions, "_asdict"):
        values = predictions._asdict()
    else:
        values = {f"output {i}": x for i, x in enumerate(predictions)}
    return {
        key: [x for x in tree_leaves(value) if isinstance(x, Tensor)]
        for key, value in values.items()
    }


def _merge_levels(graph: Architecture) -> None:
    """Make the levels one input, where each block of the head takes all of them in turn."""
    names = [name for name, _, _ in graph.levels]
    taken = [{*names} & {*x.sources} for x in graph.part(HEAD).values()]
    if len(names) == 1 or any(x and len(x) < len(names) for x in taken):
        return
    shapes = [graph.blocks.pop(name).shapes[0] for name in names]
    merged = f"{names[0]} … {names[-1]}"
    lines = [merged, "each in turn"]
    graph.blocks = {merged: Block(merged, HEAD, lines, shapes), **graph.blocks}
    for block in graph.blocks.values():
        if {*names} <= {*block.sources}:
            kept = [x for x in block.sources if x not in names]
            block.sources = dict.fromkeys([merged, *kept])


def _merge_repeats(graph: Architecture) -> None:
    """Make a chain of equal blocks one block that says how many they are."""
    for name in [*graph.blocks]:
        block = graph.blocks[name]
        if len(block.sources) != 1:
            continue
        before = graph.blocks[next(iter(block.sources))]
        users = [x for x in graph.blocks.values() if before.name in x.sources]
        made = [*(maker for _, maker, _ in graph.levels), *(y for x in graph.outputs for y in x[1])]
        alike = (before.part, before.lines, before.shapes) == (
            block.part,
            block.lines,
            block.shapes,
        )
        if not alike or block.is_join or len(users) != 1 or before.name in made:
            continue
        block.repeats += before.repeats
        block.sources = before.sources
        del graph.blocks[before.name]
