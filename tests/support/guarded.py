"""Kernels run on memory that ends where the process may not read, in Triton's interpreter."""

from __future__ import annotations

import ctypes
import importlib
import mmap
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor


def call_guarded(function: str, /, **kwargs: Any) -> Any:
    """Call `module:function` while every launch has its tensors at the end of their memory.

    A read or write past the end of one kills the process.
    """
    from hf_token_compress.kernels.launch import Launch

    run = Launch.run

    def run_guarded(launch: Launch, config: Any = None) -> None:
        tensors = {k: v for k, v in launch.arguments.items() if isinstance(v, Tensor)}
        copies = {name: at_the_end_of_memory(tensor) for name, tensor in tensors.items()}
        run(replace(launch, arguments=launch.arguments | copies), config)
        for name, copy in copies.items():
            tensors[name].copy_(copy)

    module, name = function.split(":")
    Launch.run = run_guarded  # type: ignore[method-assign]
    try:
        return getattr(importlib.import_module(module), name)(**kwargs)
    finally:
        Launch.run = run  # type: ignore[method-assign]


def at_the_end_of_memory(tensor: Tensor) -> Tensor:
    """A contiguous copy whose last byte is followed by a page without any access."""
    assert tensor.is_contiguous()
    if tensor.numel() == 0:
        return tensor
    pages = -(-tensor.nbytes // mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    size = (pages + 1) * mmap.PAGESIZE
    start = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE, private, -1, 0)
    guard = start + pages * mmap.PAGESIZE
    no_access = 0
    assert libc.mprotect(ctypes.c_void_p(guard), mmap.PAGESIZE, no_access) == 0
    buffer = (ctypes.c_byte * tensor.nbytes).from_address(guard - tensor.nbytes)
    copy = torch.frombuffer(buffer, dtype=torch.uint8).view(tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)
