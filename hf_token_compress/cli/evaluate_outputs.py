"""Where the results of `evaluate` go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .evaluate_table import print_evaluation
from .outputs import Outputs, write_json
from .questions import name_left_out

if TYPE_CHECKING:
    from ..evaluation import Evaluation, EvaluationSetting, Evaluator


@dataclass(frozen=True)
class Run:
    """What is asked for.

    Attributes:
        outputs: Where the results go.
        about: What is evaluated, as JSON types.
        settings: The settings, without the uncompressed model.
    """

    outputs: Outputs
    about: dict[str, Any]
    settings: tuple[EvaluationSetting, ...]

    def write(self, found: Evaluation, **more: Any) -> None:
        """Print the results, and write and draw them where that was asked for."""
        from ..evaluation.table import sample_rows, table_rows

        outputs, model, rows = self.outputs, self.about["model"], table_rows(found)
        if outputs.plot is not None:
            _draw(outputs.plot, model, rows)
        table = {
            **self.about,
            **more,
            "labelled": found.labelled,
            "left_out": [asdict(item) for item in found.left_out],
            "rows": rows,
            "samples": [sample_rows(result) for result in found.results],
        }
        write_json(table, outputs.output)
        if outputs.as_json:
            typer.echo(json.dumps(table, ensure_ascii=False))
        else:
            print_evaluation(model, found, rows, markdown=outputs.markdown)
        name_left_out(found.left_out)

    def kept(self, evaluator: Evaluator) -> str:
        """What a stopped run leaves."""
        found = evaluator.found(self.settings)
        answered = len(found.results[0].samples)
        remedy = "run the same command again to continue"
        if self.outputs.output is None:
            remedy = "with --output, a stopped run can be continued"
        if not answered:
            return f"No question was answered with all settings yet: {remedy}."
        self.write(found, stopped=True)
        return f"The table is about the {answered} questions answered with all settings: {remedy}."


def _draw(path: Path, model: str, rows: Sequence[dict[str, Any]]) -> None:
    from ..viz import retention_curve, save_figure

    title = f"{model}: {rows[0]['asked']} questions, 95 % intervals"
    save_figure(retention_curve(rows, title=title), path)
