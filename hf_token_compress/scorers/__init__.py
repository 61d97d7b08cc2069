"""Scorers: how much each visual token matters for the instruction, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .base import Scorer
    from .registry import available_scorers, build_scorer, register_scorer

_HOMES = {
    ".base": ("Scorer",),
    ".registry": ("available_scorers", "build_scorer", "register_scorer"),
}

__all__ = ["Scorer", "available_scorers", "build_scorer", "register_scorer"]

# The registry is imported with the library itself, and must not bring in torch.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
