"""What `recommend` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from ..config import TokenCompressionConfig
from .console import notices, results

if TYPE_CHECKING:
    from ..evaluation.recommend import Recommendation, Step

_WIDEST_SCORER = 24


def print_recommendation(
    model: str,
    location: str,
    found: Recommendation,
    setting: TokenCompressionConfig | None,
    output: Path | None,
    *,
    labelled: bool,
) -> None:
    """Print the settings that were tested, the verdict, and how to use what is recommended.

    Args:
        model: What the user calls the model.
        location: Its Hub id or folder.
        found: The recommendation.
        setting: The setting to save, if one is recommended.
        output: The file that has it, if one was asked for.
        labelled: Whether right answers are known.
    """
    console = results()
    if found.steps:
        what = "Score" if labelled else "Agreement with the full model"
        title = f"{what} of {model} on {found.questions} questions, in percent of the full model's"
        console.print(Text(title, style="italic"))
        console.print(_table(found))
        notices().print(
            f"Each loss is at most that with {100 * found.level:g} % confidence.", style="dim"
        )
    console.print(Text(_verdict(found)))
    if setting is not None:
        typer.echo(_how_to_use(location, setting, output))


def _table(found: Recommendation) -> Table:
    from ..evaluation import EvaluationSetting

    table = Table()
    table.add_column("Scorer", max_width=_WIDEST_SCORER, overflow="fold")
    table.add_column("Budget")
    for heading in ("Kept", "Score", "Loses at most"):
        table.add_column(heading, justify="right")
    table.add_column("", overflow="fold")
    for step in found.steps:
        table.add_row(
            step.scorer,
            EvaluationSetting(step.scorer, step.config).budget_text,
            f"{100 * step.kept_share:.0f} %",
            f"{step.percent_of_full:.1f}",
            f"{step.loss_bound:.1f}",
            _mark(step, found),
        )
    return table


def _mark(step: Step, found: Recommendation) -> str:
    if step is found.chosen:
        return "recommended"
    if step.accepted:
        return "within"
    if step.questions_needed is None:
        return "too much"
    return f"needs about {step.questions_needed}"


def _verdict(found: Recommendation) -> str:
    limit = f"{found.max_loss:g} % of the full model's score"
    sure = f"{100 * found.confidence:g} % confidence"
    if found.chosen is not None:
        return f"With {sure}, the recommended setting loses at most {limit}."
    if found.verdict == "too_few_questions":
        return (
            f"The data is too small to tell: to show with {sure} that at most {limit} is lost "
            f"takes about {found.questions_needed} questions, and there are {found.questions}. "
            "Ask more questions, allow a larger --max-loss, or name fewer scorers."
        )
    return (
        f"Nothing is recommended: every scorer loses more than {limit} at its largest ratio. Allow "
        "a larger --max-loss, or try larger ratios."
    )


def _how_to_use(location: str, setting: TokenCompressionConfig, output: Path | None) -> str:
    """Lines of Python that load the model with the setting and save both."""
    if output is None:
        defaults = TokenCompressionConfig().to_dict()
        argument = repr({name: value for name, value in setting.items() if value != defaults[name]})
    else:
        argument = f"json.load(open({str(output)!r}))"
    return "\n".join(
        [
            "",
            *(["import json", ""] if output is not None else []),
            "import hf_token_compress",
            "from transformers import AutoModelForImageTextToText",
            "",
            "model = AutoModelForImageTextToText.from_pretrained(",
            f"    {location!r},",
            f"    token_compression={argument},",
            ")",
            'model.save_pretrained("FOLDER")  # with the setting',
        ]
    )
