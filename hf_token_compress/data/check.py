"""What can be known of samples before a model is loaded, and which metrics fit them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..hub import first_line
from .metrics import METRICS, MetricOption, number_of
from .sources import SampleSource


@dataclass
class Checked:
    """What samples have, as far as it is known without decoding.

    Attributes:
        samples: How many there are, good and bad.
        answered: How many have an answer.
        with_choices: How many have choices.
        lettered: How many of these ask for the letter.
        numeric: How many have an answer that is a number.
        kinds: How many there are of each kind; None stands for those without a kind.
        modalities: How many there are of images, and of videos.
        bad: Where those are that cannot be read (`SampleSource.place`), and why.
    """

    samples: int = 0
    answered: int = 0
    with_choices: int = 0
    lettered: int = 0
    numeric: int = 0
    kinds: dict[str | None, int] = field(default_factory=dict)
    modalities: dict[str, int] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)

    def check_metric(self, metric: MetricOption) -> None:
        """Raise unless a metric can score answers to these samples.

        "auto" fits all: where no sample has an answer, there is nothing for it to score.

        Raises:
            ValueError: It cannot.
        """
        if metric == "auto":
            return
        name, needs = "metric", "answers"
        if isinstance(metric, str):
            name, needs = f"metric {metric}", METRICS[metric].needs
        if needs == "choices" and not self.with_choices:
            raise ValueError(
                f"The {name} needs choices, but no sample has any: choose another metric, or name "
                "the choices with --choices-column."
            )
        if not self.answered:
            raise ValueError(
                f"The {name} needs right answers, but no sample has one: leave --metric out, or "
                "name the answers with --answer-column."
            )
        if isinstance(metric, str) and metric != "choice" and self.lettered:
            raise ValueError(
                f"The {name} compares texts, but questions with choices ask for a letter: use the "
                "metric choice, or ask for the text with --prompt-suffix."
            )
        if needs == "numbers" and not self.numeric:
            raise ValueError(
                f"The {name} is about numbers, but no answer is one: choose another metric."
            )


def check_samples(source: SampleSource) -> Checked:
    """Look at all samples without decoding images or videos."""
    found = Checked(samples=len(source))
    for number in range(len(source)):
        try:
            sample = source.peek(number)
        except (OSError, ValueError) as error:
            reason = first_line(error).rstrip(".")
            found.bad.append((source.place(number), reason[:1].lower() + reason[1:]))
            continue
        found.answered += bool(sample.answers)
        found.with_choices += bool(sample.choices)
        found.lettered += sample.asks_for_letter
        found.numeric += any(number_of(answer) is not None for answer in sample.answers)
        found.kinds[sample.kind] = found.kinds.get(sample.kind, 0) + 1
        found.modalities[sample.modality] = found.modalities.get(sample.modality, 0) + 1
    return found
