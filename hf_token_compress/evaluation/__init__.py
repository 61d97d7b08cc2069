"""Evaluation: what answers keep of their accuracy when visual tokens are dropped."""

from ..data.composed import clip_samples, scene_samples
from ..data.sample import Sample
from .answering import answer_samples
from .questions import LeftOut, Questions
from .retention import (
    ConfiguredScorer,
    RetentionResult,
    measure_retention,
    retention_markdown,
)
from .truth import TruthScorer

__all__ = [
    "ConfiguredScorer",
    "LeftOut",
    "Questions",
    "RetentionResult",
    "Sample",
    "TruthScorer",
    "answer_samples",
    "clip_samples",
    "measure_retention",
    "retention_markdown",
    "scene_samples",
]
