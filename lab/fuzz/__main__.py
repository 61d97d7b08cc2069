"""Random prompts and settings, checked against the stock model.

    python -m lab.fuzz --prompts 10000 --seed 0
    python -m lab.fuzz --seed 0 --first 4711 --prompts 1     # one prompt again
    python -m lab.fuzz --models qwen3_vl,vila

Every number is a prompt in a batch, with a model, a setting and a use of the model that follow from
the seed and the number alone. Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import fields

from hf_token_compress import TokenCompressionConfig

from ..arguments import comma_list, make_parser, positive
from .checks import problems
from .draws import Trial, draw_trial
from .subjects import RANDOM, TRAINED

_SECONDS_BETWEEN_LINES = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Check prompts and print those that are wrong; 0 if there are none."""
    parser = make_parser("lab.fuzz", __doc__)
    parser.add_argument("--prompts", type=positive, default=1000, help="how many to check")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other prompts")
    parser.add_argument("--first", type=int, default=0, help="number of the first prompt")
    parser.add_argument(
        "--models",
        type=comma_list(str),
        default=[],
        help=f"between commas, from {', '.join((*TRAINED, *RANDOM))}; by default all",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.models) - {*TRAINED, *RANDOM}:
        parser.error(f"There is no model {min(unknown)!r}: see --help.")
    of_models = f" --models {','.join(options.models)}" if options.models else ""
    command = f"python -m lab.fuzz --seed {options.seed}{of_models}"
    last = options.first + options.prompts
    wrong = []
    start = printed = time.monotonic()
    for number in range(options.first, last):
        trial = draw_trial(options.seed, number, tuple(options.models))
        if found := problems(trial):
            wrong.append(number)
            print(f"Prompt {number} is wrong: {command} --first {number} --prompts 1")
            print("\n".join([*_described(trial), *(f"    {line}" for line in found)]), flush=True)
        now = time.monotonic()
        if now - printed > _SECONDS_BETWEEN_LINES:
            printed = now
            rest = f"{command} --first {number + 1} --prompts {last - number - 1}"
            print(_summary(number + 1 - options.first, wrong, now - start) + f"; the rest: {rest}")
            sys.stdout.flush()
    print(_summary(options.prompts, wrong, time.monotonic() - start), flush=True)
    return 1 if wrong else 0


def _summary(count: int, wrong: Sequence[int], seconds: float) -> str:
    return f"{count} prompts checked, {len(wrong)} wrong, {seconds:.0f} s"


def _described(trial: Trial) -> list[str]:
    values = {item.name: getattr(trial, item.name) for item in fields(trial)}
    usual = TokenCompressionConfig()
    setting = {name: value for name, value in trial.config.items() if value != usual[name]}
    return [f"  {name}: {value}" for name, value in {**values, "config": setting}.items()]


if __name__ == "__main__":
    sys.exit(main())
