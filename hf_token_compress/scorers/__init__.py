"""Scorers: how much each visual token matters for the instruction. One file each."""

from .base import ModelScorer, Scorer
from .registry import available_scorers, build_scorer, register_scorer

__all__ = ["ModelScorer", "Scorer", "available_scorers", "build_scorer", "register_scorer"]
