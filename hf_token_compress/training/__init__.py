"""Training of mappers: collect, then train; `calibrate` does both in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .calibration import calibrate

_HOMES = {".calibration": ("calibrate",)}

__all__ = ["calibrate"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
