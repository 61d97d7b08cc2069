"""The size of the largest tensor that a block of code makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Use as a context manager.

    Attributes:
        elements: Elements of the largest tensor that was made inside the `with` block.
        stored: Elements of the largest one in memory, where expanded ones take no more room.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.stored = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.elements = max(self.elements, output.numel())
            stored = output.untyped_storage().nbytes() // output.element_size()
            self.stored = max(self.stored, stored)
        return output
