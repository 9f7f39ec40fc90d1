"""What a piece of code asks of PyTorch's operators."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Remembers the size in bytes of the largest result of any operator."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor._base is None:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


class HostWaits(TorchDispatchMode):
    """Remembers the operators whose result the host would wait for on a GPU.

    Those are numbers that Python sees, and results whose length depends on the data.
    """

    NAMES = ("_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(self.NAMES):
            self.found.append(name)
        if name in ("index", "index_put", "index_put_"):
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            self.found += [f"{name} with a mask"] * len(masks)
        return func(*args, **(kwargs or {}))
