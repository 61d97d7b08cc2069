"""What `benchmark` measures."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import DEFAULT_SCORER
from ..options import check_options
from .errors import CommandError, wrong_arguments

_DEFAULT_SCORERS = (DEFAULT_SCORER, "mapper")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured."""

    scorer: tuple[str, ...] = field(
        default=_DEFAULT_SCORERS,
        metadata={
            "help": (
                "Scorers, separated by commas. "
                '"mapper:NAME" scores with the mapper of that folder or Hub id; the plain "mapper" '
                "with the model's own, or else with random weights, which takes as long."
            ),
            "metavar": "NAMES",
        },
    )
    retention_ratio: tuple[float, ...] = field(
        default=(0.5, 0.25, 0.1),
        metadata={
            "help": "Shares of the visual tokens to keep, separated by commas.",
            "interval": "(0, 1]",
            "metavar": "RATIOS",
        },
    )
    visual_tokens: tuple[int, ...] = field(
        default=(500, 1500, 6000),
        metadata={
            "help": (
                "Visual tokens of a prompt, separated by commas. Images are made so large that the "
                "model makes about as many."
            ),
            "interval": "[1, inf)",
            "metavar": "COUNTS",
        },
    )
    batch_size: tuple[int, ...] = field(
        default=(1,),
        metadata={
            "help": "Prompts per batch, separated by commas.",
            "interval": "[1, inf)",
            "metavar": "COUNTS",
        },
    )
    new_tokens: int = field(
        default=8, metadata={"help": "Tokens to generate after the first.", "interval": "[0, inf)"}
    )
    repeats: int = field(
        default=5,
        metadata={"help": "Measurements of each, after one to warm up.", "interval": "[1, inf)"},
    )
    break_even: bool = field(
        default=True,
        metadata={
            "help": (
                "Whether to look for the number of visual tokens from which on compression is "
                "faster, with the first of --batch-size and by bisection up to the largest of "
                "--visual-tokens."
            )
        },
    )

    def __post_init__(self) -> None:
        check_options(self)

    def check_scorers(self, mapper: str | None) -> None:
        """Check that scorers and mappers are there, and are used.

        Args:
            mapper: The mapper of `--mapper`.

        Raises:
            CommandError: They are not.
            MapperNotFoundError: There is no such mapper.
        """
        from ..mapper import load_mappers
        from ..scorers import available_scorers

        if mapper is not None and "mapper" not in self.scorer:
            raise CommandError(
                f"--mapper {mapper} is not used without the scorer mapper: add mapper to --scorer, "
                "or leave --mapper out.",
                exit_code=2,
            )
        mappers = [] if mapper is None else [mapper]
        for name in self.scorer:
            kind, _, own = name.partition(":")
            if kind not in available_scorers() or (own and kind != "mapper"):
                raise CommandError(
                    f"There is no scorer {name!r}: choose one of {', '.join(available_scorers())}.",
                    exit_code=2,
                )
            mappers += [own] if own else []
        for own in mappers:
            with wrong_arguments():
                load_mappers(own)
