"""What `evaluate` measures: its options, and the settings that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import DEFAULT_SCORER
from ..options import check_options
from .errors import CommandError, wrong_arguments
from .options import FRAMES

if TYPE_CHECKING:
    from ..evaluation import EvaluationSetting, Questions
    from .checkpoint import CheckpointSource

_SCORERS = ("truth", DEFAULT_SCORER, "attention", "uniform", "random")
_RATIOS = (0.5, 0.25, 0.1)


@dataclass(frozen=True)
class EvaluateOptions:
    """What is measured."""

    scorer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": (
                'Scorers, separated by commas. "truth" keeps first what the answer depends on; '
                '"mapper:NAME" scores with the mapper of that folder or Hub id. By default '
                f'{", ".join(_SCORERS)}; with --mapper, "mapper" too.'
            ),
            "metavar": "NAMES",
        },
    )
    retention_ratio: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": (
                "Shares of the visual tokens to keep, separated by commas. By default "
                f"{', '.join(map(str, _RATIOS))}, unless --max-visual-tokens is given."
            ),
            "interval": "(0, 1]",
            "metavar": "RATIOS",
        },
    )
    max_visual_tokens: tuple[int, ...] = field(
        default=(),
        metadata={
            "help": "Numbers of visual tokens to keep of each prompt, separated by commas.",
            "interval": "[1, inf)",
            "metavar": "NUMBERS",
        },
    )
    downsample: bool = field(
        default=False,
        metadata={
            "help": (
                "Ask the uncompressed model about smaller images, too, and tell apart what these "
                "still answer."
            )
        },
    )
    divergence: bool = field(
        default=False,
        metadata={
            "help": (
                "Measure the KL divergence of the first tokens where right answers are known, too."
            )
        },
    )
    log_probability: bool = field(
        default=False, metadata={"help": "Measure the log-probability of the right answers."}
    )
    frames: int = field(default=8, metadata=FRAMES)
    batch_size: int = field(
        default=16,
        metadata={"help": "Samples that go through the model at once.", "interval": "[1, inf)"},
    )
    max_new_tokens: int = field(
        default=64, metadata={"help": "Longest answer, in tokens.", "interval": "[1, inf)"}
    )

    def __post_init__(self) -> None:
        check_options(self)

    def scorers(
        self, mapper: str | None, source: CheckpointSource
    ) -> tuple[tuple[str, ...], str | None]:
        """The scorers to compare, and the mapper that the plain name "mapper" stands for.

        Raises:
            CommandError: There is no such scorer, or `--mapper` is not used.
        """
        from ..evaluation.settings import TRUTH
        from ..scorers import available_scorers

        by_default = _SCORERS if mapper is None else (TRUTH, "mapper", *_SCORERS[1:])
        scorers = self.scorer or by_default
        choices = (TRUTH, *available_scorers())
        for name in scorers:
            if name not in choices and not name.startswith("mapper:"):
                raise CommandError(
                    f"There is no scorer {name!r}: choose one of {', '.join(choices)}.",
                    exit_code=2,
                )
        if mapper is not None and "mapper" not in scorers:
            raise CommandError(
                f"--mapper {mapper} is not used without the scorer mapper: add mapper to "
                "--scorer, or leave --mapper out.",
                exit_code=2,
            )
        if mapper is None and "mapper" in scorers:
            mapper = source.mapper.get("mapper")
        return scorers, mapper

    def settings(
        self,
        scorers: Sequence[str],
        mapper: str | None,
        questions: Questions,
        changes: Mapping[str, Any],
    ) -> tuple[EvaluationSetting, ...]:
        """The settings to compare, without "truth" where nobody asked for it and it is unknown.

        Raises:
            CommandError: A setting is given twice, or lacks something.
        """
        from ..evaluation import settings_of
        from ..evaluation.settings import TRUTH

        if not self.scorer and questions.without_ground_truth is not None:
            scorers = [name for name in scorers if name != TRUTH]
        ratios = self.retention_ratio or (() if self.max_visual_tokens else _RATIOS)
        with wrong_arguments():
            questions.check_scorers(scorers)
            return settings_of(
                scorers,
                ratios,
                self.max_visual_tokens,
                mapper=mapper,
                downsample=self.downsample,
                **changes,
            )
