"""The settings that are compared: scorers with their options, selections and budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.config import Selection
from hf_token_compress.evaluation import FULL, EvaluationSetting

Group = Literal["main", "baseline", "structured"]
"""Which questions a row is asked, and when: "main" first and most, "structured" last."""

RATIOS = (0.5, 0.25, 0.1)
STRUCTURE_SHARE = 0.25
"""The library's own value; rules of papers run without."""


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard.

    Attributes:
        name: What the table calls it, and for "truth" which scorer it is.
        scorer: Name of the scorer.
        options: Its keyword arguments.
        selection: How tokens are chosen from their scores.
        structure_share: As `TokenCompressionConfig` takes it.
        group: Which questions it is asked, and when.
        ours: Whether it is a candidate of this library, a mapper or an oracle, and no baseline.
        downsampled: Whether images are made smaller and no tokens dropped.
    """

    name: str
    scorer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    selection: Selection = "top_k"
    structure_share: float = 0.0
    group: Group = "baseline"
    ours: bool = False
    downsampled: bool = False

    def setting(self, ratio: float, mapper: str | None) -> EvaluationSetting:
        """The row with a retention ratio.

        Args:
            ratio: Share of the visual tokens to keep.
            mapper: The mapper of the model.
        """
        config = TokenCompressionConfig(
            retention_ratio=ratio,
            min_visual_tokens=0,
            min_tokens_per_visual=0,
            scorer=self.scorer,
            scorer_options=dict(self.options),
            selection=self.selection,
            structure_share=self.structure_share,
            mapper=mapper if self.scorer == "mapper" else None,
        )
        label = None if self.downsampled else self.name
        return EvaluationSetting(label, config, self.downsampled)


def _ours(name: str, scorer: str, selection: Selection = "top_k", group: Group = "main") -> Row:
    return Row(name, scorer, {}, selection, STRUCTURE_SHARE, group=group, ours=True)


def _structured(row: Row, group: Group = "structured") -> Row:
    """The same rule, with the tokens on no grid kept first."""
    name = f"{row.name}, structure first"
    return dataclasses.replace(row, name=name, structure_share=STRUCTURE_SHARE, group=group)


FULL_ROW = "full"
"""The uncompressed model in results."""

_CONTROLS = (
    Row("attention", "attention", group="main"),
    Row("random", "random", group="main"),
    Row("uniform", "uniform", group="main"),
)
_BASELINES = (
    Row("gated_fusion, no structure", "gated_fusion"),
    Row("attention_without_rope", "attention_without_rope"),
    Row("text_similarity", "text_similarity"),
    Row("whitened_similarity", "whitened_similarity"),
    Row("hawk", "hawk"),
    Row("priortr", "priortr"),
    Row("divprune", "divprune"),
    Row("dart", "dart"),
    Row("cdpruner", "cdpruner"),
    Row("scope", "scope"),
    Row("idpruner", "idpruner"),
    Row("zoo_prune", "zoo_prune"),
    Row("visionzip", "visionzip"),
    Row("vispruner", "vispruner"),
    Row("prumerge", "prumerge"),
    Row("down-sampling", "uniform", downsampled=True),
)

ROWS: tuple[Row, ...] = (
    _ours("gated_fusion, diverse", "gated_fusion", "diverse"),
    _ours("attention, diverse", "attention", "diverse", "baseline"),
    _ours("gated_fusion", "gated_fusion", group="baseline"),
    _ours("mapper", "mapper"),
    _ours("mapper, diverse", "mapper", "diverse"),
    _ours("truth", "random"),
    *_CONTROLS,
    *_BASELINES,
    *(_structured(row, "baseline") for row in _CONTROLS),
    *(_structured(row) for row in _BASELINES[1:-1]),
)
"""All rows, in the order of the table."""


def row_of(setting: tuple[str | None, bool, Mapping[str, Any]]) -> tuple[str, float] | None:
    """Name and retention ratio of the row that asked with a setting, or None.

    Args:
        setting: Name of the scorer, whether images were down-sampled, and the configuration.
    """
    label, downsampled, config = setting
    # Where the mapper lies does not matter.
    own = {**config, "mapper": None}
    if (label, downsampled, own) == (None, False, _options(FULL)):
        return FULL_ROW, 1.0
    for row in ROWS:
        if (None if row.downsampled else row.name, row.downsampled) == (label, downsampled):
            ratio = config["retention_ratio"]
            expected = {**_options(row.setting(ratio, "named")), "mapper": None}
            return (row.name, ratio) if own == expected else None
    return None


def _options(setting: EvaluationSetting) -> dict[str, Any]:
    return {name: setting.config[name] for name in setting.config.__dataclass_fields__}
