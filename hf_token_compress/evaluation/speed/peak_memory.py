"""How much memory a computation takes at its peak."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

# With these environment variables glibc's allocator maps every piece from 128 KiB on by itself, so
# that the peak does not depend on how the heap happens to be cut up. It costs some time.
MEASURED_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}

_PEAK_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Memory of a device, from the moment this is made; on Linux, or on a CUDA device.

    On the CPU it is the resident memory of the process. What its allocator still holds of memory
    that was freed is handed back first where that can be done (glibc). For figures that can be
    compared, measure in a process of its own, started with `MEASURED_ENVIRONMENT`.

    Args:
        device: The device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
            self._device = device
            self._before = torch.cuda.memory_allocated(device)
        else:
            _hand_back_freed_memory()
            # Writing 5 sets the high-water mark of resident memory back to the present.
            _PEAK_RESET.write_text("5")
            self._before = _resident("VmRSS")

    def bytes(self) -> int:
        """Bytes at the peak beyond what was held at first.

        Raises:
            RuntimeError: The system does not say.
        """
        if self._on_gpu:
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return _resident("VmHWM") - self._before


def _hand_back_freed_memory() -> None:
    gc.collect()
    # Without it, what is measured would be served from memory that is resident already.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}: measure on Linux, or on a CUDA device.")


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of a computation, beyond what was held before it.

    Args:
        run: The computation.
        device: The device that computes.

    Returns:
        None where the system does not say: on other CPUs than Linux's, and other accelerators.
    """
    known = device.type == "cuda" or (device.type == "cpu" and _PEAK_RESET.exists())
    memory = PeakMemory(device) if known else None
    run()
    return None if memory is None else memory.bytes()
