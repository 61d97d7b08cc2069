"""Command-line arguments that several commands of the laboratory share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it is written.

    Args:
        module: How the command is called, for instance "lab.benchmarks.depths".
        description: The module's docstring.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def comma_list(convert: Callable[[str], T]) -> Callable[[str], list[T]]:
    """An argument type: values between commas."""

    def values(text: str) -> list[T]:
        return [convert(part) for part in text.split(",")]

    values.__name__ = f"list of {convert.__name__}"
    return values


def positive(text: str) -> int:
    """An argument type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but it is {value}")
    return value


def add_model(parser: argparse.ArgumentParser, default: str | None = "tiny-qwen2-vl") -> None:
    """Add `--model`; None for `default` makes it required."""
    parser.add_argument(
        "--model",
        default=default,
        required=default is None,
        help="tiny model such as tiny-qwen2-vl, Hub id or folder",
    )


def add_questions(parser: argparse.ArgumentParser, per_kind: int) -> None:
    """Add `--per-kind` and `--seed`."""
    parser.add_argument(
        "--per-kind", type=positive, default=per_kind, help="questions of each kind"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image")


def add_retention_ratios(
    parser: argparse.ArgumentParser, default: Sequence[float] = (0.5, 0.25, 0.1)
) -> None:
    """Add `--retention-ratio`."""
    parser.add_argument(
        "--retention-ratio",
        dest="retention_ratios",
        metavar="RATIOS",
        type=comma_list(float),
        default=list(default),
        help="shares of visual tokens to keep, between commas",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add `--threads`, which `set_threads` reads."""
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads")


def set_threads(options: argparse.Namespace) -> None:
    """Let torch use as many threads as were asked for."""
    torch.set_num_threads(options.threads)


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the hidden `--task`, by which `run_in_own_process` starts a command."""
    parser.add_argument("--task", help=argparse.SUPPRESS)
