"""Results of an evaluation with given numbers of right answers."""

from __future__ import annotations

from collections.abc import Mapping

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.evaluation import FULL, EvaluationSetting, RetentionResult, SampleResult

TOKENS = 400


def retention_result(
    scorer: str | None, kept: float, right: Mapping[str, int], asked: Mapping[str, int]
) -> RetentionResult:
    """A result with so many right answers of each kind, the first ones."""
    setting = FULL
    if scorer is not None:
        setting = EvaluationSetting(scorer, TokenCompressionConfig(retention_ratio=kept))
    kinds = [(kind, place) for kind, count in asked.items() for place in range(count)]
    samples = (
        SampleResult(
            number=number,
            kind=kind,
            visual=str(number),
            answer="",
            score=float(place < right[kind]),
            agrees=place < right[kind],
            visual_tokens_before=TOKENS,
            visual_tokens_after=round(kept * TOKENS),
        )
        for number, (kind, place) in enumerate(kinds)
    )
    return RetentionResult(setting, tuple(samples))
