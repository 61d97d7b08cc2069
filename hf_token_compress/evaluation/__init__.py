"""Evaluation: what answers keep of their accuracy when visual tokens are dropped."""

from ..data.composed import clip_samples, scene_samples
from ..data.sample import Sample
from .answering import answer_samples
from .engine import Evaluator
from .questions import Questions
from .results import Evaluation, LeftOut, RetentionResult, SampleResult
from .retention import measure_retention, retention_markdown
from .settings import FULL, ConfiguredScorer, EvaluationSetting, settings_of
from .truth import TruthScorer

__all__ = [
    "FULL",
    "ConfiguredScorer",
    "Evaluation",
    "EvaluationSetting",
    "Evaluator",
    "LeftOut",
    "Questions",
    "RetentionResult",
    "Sample",
    "SampleResult",
    "TruthScorer",
    "answer_samples",
    "clip_samples",
    "measure_retention",
    "retention_markdown",
    "scene_samples",
    "settings_of",
]
