"""What `recommend` chooses from: its options, and the settings that they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..config import TokenCompressionConfig
from ..options import check_options
from .errors import CommandError, wrong_arguments

if TYPE_CHECKING:
    from ..evaluation import EvaluationSetting


@dataclass(frozen=True)
class RecommendOptions:
    """What may be recommended, and how sure it must be."""

    max_loss: float = field(
        default=1.0,
        metadata={
            "help": "Percent of the full model's score that may be lost.",
            "interval": "(0, 100)",
        },
    )
    confidence: float = field(
        default=0.95,
        metadata={
            "help": "That the recommended setting loses no more.",
            "interval": "[0.5, 1)",
        },
    )
    scorer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": (
                'Scorers to choose from, separated by commas. "mapper:NAME" scores with the mapper '
                "of that folder or Hub id. By default the mapper that comes with the model, if "
                "there is one, and the untrained default. More scorers need more questions."
            ),
            "metavar": "NAMES",
        },
    )
    retention_ratio: tuple[float, ...] = field(
        default=(0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05),
        metadata={
            "help": "Shares of the visual tokens to choose from, separated by commas.",
            "interval": "(0, 1]",
            "metavar": "RATIOS",
        },
    )
    top_p: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "Values of top_p to choose from, too, separated by commas.",
            "interval": "(0, 1]",
            "metavar": "SHARES",
        },
    )
    min_visual_tokens: int | None = field(
        default=None,
        metadata={
            "help": (
                "Visual tokens from which prompts will be compressed. By default measured: from "
                "where the first token comes earlier on this machine."
            ),
            "interval": "[0, inf)",
        },
    )

    def __post_init__(self) -> None:
        check_options(self)

    def sequences(self, mapper: str | None, *, named: bool) -> dict[str, list[EvaluationSetting]]:
        """The settings of each scorer, from the most tokens down.

        Args:
            mapper: Folder or Hub id of the mapper that the plain name "mapper" stands for.
            named: Whether the user named it.

        Raises:
            CommandError: There is no scorer of that name, or a setting contradicts itself.
        """
        from ..evaluation.settings import TRUTH, EvaluationSetting, settings_of
        from ..scorers import available_scorers

        untrained = TokenCompressionConfig().scorer_name
        scorers = self.scorer or (untrained if mapper is None else f"mapper,{untrained}").split(",")
        for name in scorers:
            if name not in available_scorers() and not name.startswith("mapper:"):
                reason = " It knows the answers." if name == TRUTH else ""
                raise CommandError(
                    f"There is no scorer {name!r} to recommend.{reason} Choose from "
                    f"{', '.join(available_scorers())}.",
                    exit_code=2,
                )
        if named and "mapper" not in scorers:
            raise CommandError(
                f"--mapper {mapper} is not used without the scorer mapper: add mapper to "
                "--scorer, or leave --mapper out.",
                exit_code=2,
            )
        sequences: dict[str, list[EvaluationSetting]] = {}
        with wrong_arguments():
            for setting in settings_of(
                scorers, sorted(set(self.retention_ratio), reverse=True), mapper=mapper
            ):
                sequences.setdefault(setting.name, []).append(setting)
            if self.top_p:
                for setting in settings_of(scorers, [1.0], mapper=mapper):
                    sequences[f"{setting.name}, top_p"] = [
                        EvaluationSetting(setting.scorer, replace(setting.config, top_p=share))
                        for share in sorted(set(self.top_p), reverse=True)
                    ]
        return sequences
