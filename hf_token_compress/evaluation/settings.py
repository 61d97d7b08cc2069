"""Which settings an evaluation compares: scorers with budgets, and down-sampled images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import TokenCompressionConfig

TRUTH = "truth"
"""Name, among scorers, of the oracle that keeps first what the answer depends on."""


@dataclass(frozen=True)
class ConfiguredScorer:
    """A scorer with options, and what results call it.

    Attributes:
        label: Name in results.
        scorer: Name of the scorer.
        options: Its keyword arguments.
    """

    label: str
    scorer: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSetting:
    """How the model sees the images of all questions.

    Attributes:
        scorer: What results call the scorer; None where nothing is dropped.
        config: Scorer and budget.
        downsampled: Whether the uncompressed model gets smaller images, of about as many visual
            tokens as the budget allows (arXiv 2510.07143).
    """

    scorer: str | None = None
    config: TokenCompressionConfig = field(
        default_factory=lambda: TokenCompressionConfig(retention_ratio=1.0, min_visual_tokens=0)
    )
    downsampled: bool = False

    @property
    def name(self) -> str:
        """What tables call the scorer, or what is done without one."""
        if self.downsampled:
            return f"(down-sampled, {self.budget_text})"
        return self.scorer or "(all visual tokens)"

    @property
    def budget_text(self) -> str:
        """The budget in words."""
        ratio, most, top_p = self.budget
        if top_p is not None:
            return f"top-p {top_p:g}"
        return f"{100 * ratio:g} %" if most is None else f"{most} tokens"

    @property
    def budget(self) -> tuple[float, int | None, float | None]:
        """Retention ratio, most visual tokens and top-p."""
        return self.config.retention_ratio, self.config.max_visual_tokens, self.config.top_p

    @property
    def key(self) -> str:
        """A text that is equal for equal settings only."""
        config = {name: self.config[name] for name in self.config.__dataclass_fields__}
        return json.dumps([self.scorer, self.downsampled, config], sort_keys=True)


FULL = EvaluationSetting()
"""The uncompressed model."""


def settings_of(
    scorers: Sequence[str | ConfiguredScorer],
    retention_ratios: Sequence[float] = (),
    max_visual_tokens: Sequence[int] = (),
    *,
    mapper: str | None = None,
    downsample: bool = False,
    **changes: Any,
) -> tuple[EvaluationSetting, ...]:
    """Every scorer with every ratio and every number of tokens, without the uncompressed model.

    Args:
        scorers: Names of scorers; "truth" keeps first what the answer depends on, and
            "mapper:NAME" scores with the mapper of that folder or Hub id. Or scorers with options.
        retention_ratios: Shares of visual tokens to keep, in (0, 1].
        max_visual_tokens: Numbers of visual tokens to keep of each prompt.
        mapper: Folder or Hub id of the mapper that the plain name "mapper" stands for.
        downsample: Whether to compare with down-sampled images, too.
        **changes: Other options of `TokenCompressionConfig` that all scorers run with.

    Raises:
        TypeError, ValueError: A ratio, an option or a number is out of range, or two settings are
            equal.
    """
    budgets: list[dict[str, Any]] = [{"retention_ratio": ratio} for ratio in retention_ratios]
    budgets += [{"retention_ratio": 1.0, "max_visual_tokens": most} for most in max_visual_tokens]
    found = []
    for scorer in scorers:
        label = scorer if isinstance(scorer, str) else scorer.label
        scoring = {**changes, **_scoring(scorer, mapper)}
        found += [EvaluationSetting(label, _config(**scoring, **budget)) for budget in budgets]
    if downsample:
        found += [EvaluationSetting(None, _config(**budget), True) for budget in budgets]
    for number, setting in enumerate(found):
        if setting in found[:number]:
            raise ValueError(
                f"The scorer {setting.name} is asked twice for {setting.budget_text}: leave one "
                "out."
            )
    return tuple(found)


def _config(**changes: Any) -> TokenCompressionConfig:
    return TokenCompressionConfig(min_visual_tokens=0, **changes)


def _scoring(scorer: str | ConfiguredScorer, mapper: str | None) -> dict[str, Any]:
    if isinstance(scorer, ConfiguredScorer):
        return {"scorer": scorer.scorer, "scorer_options": dict(scorer.options)}
    name, _, own_mapper = scorer.partition(":")
    scoring: dict[str, Any] = {"scorer": "random" if name == TRUTH else name}
    if name == "mapper":
        scoring["mapper"] = own_mapper or mapper
    return scoring
