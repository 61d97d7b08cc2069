"""What `hf-token-compress demo` prints and draws."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.table import Table
from rich.text import Text

from ..data.sample import Sample
from .checkpoint import Checkpoint, ModelOptions

if TYPE_CHECKING:
    from typing import TypeAlias

    Trial: TypeAlias = tuple[Sample, list["Attempt"]]


@dataclass(frozen=True)
class Attempt:
    """One answer with all or some of the visual tokens, and the image that shows those.

    Attributes:
        share: Of the visual tokens, that was asked for.
        kv_bytes: Bytes of the KV cache after the answer.
        milliseconds: Of the whole call.
    """

    share: float
    visual_tokens: int
    prompt_tokens: int
    text: str
    right: bool
    kv_bytes: int
    milliseconds: float
    image: Image.Image


def counts_table(trials: Sequence[Trial], scorer_name: str) -> Table:
    """Answers, tokens and the size of the KV cache at every share."""
    title = Text(f"Answers with all and some visual tokens; scorer {scorer_name}")
    table = Table(title=title, title_justify="left")
    table.add_column("Question", ratio=1)
    for heading in ("Kept", "Visual\ntokens", "Prompt\ntokens", "KV cache,\nKiB"):
        table.add_column(heading, justify="right")
    table.add_column("Answer")
    table.add_column("")
    for sample, attempts in trials:
        labels = [Text(sample.question, "bold"), Text(f"Correct answer: {sample.answer}")]
        for label, attempt in itertools.zip_longest(labels, attempts):
            table.add_row(
                label,
                _kept(attempt.share),
                str(attempt.visual_tokens),
                str(attempt.prompt_tokens),
                f"{attempt.kv_bytes / 2**10:.1f}",
                Text(attempt.text or "(nothing)"),
                Text("right", "green") if attempt.right else Text("wrong", "red"),
            )
        table.add_section()
    labels = [Text("All questions, mean", "bold")]
    for label, same_share in itertools.zip_longest(labels, _by_share(trials)):
        table.add_row(
            label,
            _kept(same_share[0].share),
            f"{statistics.mean(attempt.visual_tokens for attempt in same_share):.1f}",
            f"{statistics.mean(attempt.prompt_tokens for attempt in same_share):.1f}",
            f"{statistics.mean(attempt.kv_bytes for attempt in same_share) / 2**10:.1f}",
            f"{sum(attempt.right for attempt in same_share)} of {len(same_share)}",
            "right",
        )
    return table


def times_text(trials: Sequence[Trial]) -> str:
    """How long a call takes at every share, in a sentence."""
    means = (
        f"{statistics.mean(attempt.milliseconds for attempt in same_share):.0f} ms with "
        f"{_kept(same_share[0].share)}"
        for same_share in _by_share(trials)
    )
    return f"Time of a whole call, mean: {', '.join(means)}."


def what_was_measured(checkpoint: Checkpoint, questions: int, repeats: int) -> str:
    """On which model and device, and what the figures do not say."""
    import torch

    model = checkpoint.model
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    threads = f" (threads: {torch.get_num_threads()})" if model.device.type == "cpu" else ""
    dtype = str(model.dtype).removeprefix("torch.")
    plural = "" if questions == 1 else "s"
    return (
        f"Measured here and now: {questions} question{plural} to {checkpoint.name} "
        f"({parameters:.1f} million parameters, {dtype}) on {model.device.type}{threads}. Times "
        f"are medians of {repeats} whole calls (vision, scoring, rewriting and generation) after a "
        "warm-up; the KV cache is that after the answer. So few questions show how it works, not "
        "how well, and the times of a model this small say little about a large one: "
        "`hf-token-compress benchmark --model NAME` measures yours."
    )


def contact_sheet(trial: Trial, scorer_name: str) -> Image.Image:
    """What was kept and answered at every share, side by side."""
    from ..viz import contact_sheet

    sample, attempts = trial
    captions = []
    for attempt in attempts:
        kept = "All" if attempt.share == 1.0 else f"{attempt.share:.0%}:"
        verdict = "right" if attempt.right else "wrong"
        said = attempt.text or "(nothing)"
        captions.append(f"{kept} {attempt.visual_tokens} visual tokens\n{said} ({verdict})")
    return contact_sheet(
        [attempt.image for attempt in attempts],
        captions,
        title=f"{sample.question}\nCorrect answer: {sample.answer}. Scorer: {scorer_name}.",
    )


def next_command(
    model_options: ModelOptions,
    changes: Mapping[str, Any],
    image: Path,
    question: str,
    share: float,
    overlay: Path,
) -> str:
    """The `run` command that asks a question again, as it can be pasted into this shell.

    Args:
        model_options: The model that was asked.
        changes: Compression settings of the command line, of which scorer and mapper are taken.
        image: What the question is about.
        question: What to ask.
        share: Of the visual tokens, to keep.
        overlay: Where the image with the kept tokens goes.
    """
    options = {
        "--model": model_options.model,
        "--image": str(image),
        "--prompt": question,
        "--retention-ratio": f"{share:g}",
        "--overlay": str(overlay),
        "--scorer": changes.get("scorer"),
        "--mapper": changes.get("mapper"),
        "--device": model_options.device,
    }
    words = [*_program(), "run"]
    for flag, value in options.items():
        words += [] if value is None else [flag, value]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _program() -> list[str]:
    """What to call this program by where it was called: its script may be off the path."""
    called, name = sys.argv[0], "hf-token-compress"
    if Path(called).stem != name:
        return [sys.executable, "-m", "hf_token_compress.cli"]
    return [name] if shutil.which(name) == called else [called]


def _by_share(trials: Sequence[Trial]) -> list[tuple[Attempt, ...]]:
    return list(zip(*(attempts for _, attempts in trials), strict=True))


def _kept(share: float) -> str:
    return "all" if share == 1.0 else f"{share:.0%}"
