"""Evaluation: what answers keep of their accuracy when visual tokens are dropped."""

from ..data.tasks import Sample, clip_samples, scene_samples
from .answering import answer_samples
from .retention import (
    ConfiguredScorer,
    RetentionResult,
    measure_retention,
    retention_markdown,
)
from .truth import TruthScorer

__all__ = [
    "ConfiguredScorer",
    "RetentionResult",
    "Sample",
    "TruthScorer",
    "answer_samples",
    "clip_samples",
    "measure_retention",
    "retention_markdown",
    "scene_samples",
]
