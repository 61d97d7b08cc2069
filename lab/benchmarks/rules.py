"""Compare relevance rules by removing tokens in the order of their relevance.

python -m lab.benchmarks.rules --rule gae --rule rollout
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.composed import scene_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import KINDS
from hf_token_compress.relevance import (
    DEFAULT_RULE,
    FaithfulnessReport,
    Targets,
    faithfulness,
    relevance,
)
from hf_token_compress.relevance.explain import explained_family, greedy_answers

from ..arguments import add_model, add_questions, make_parser
from ..loading import load_model

RULES: tuple[str | dict[str, Any], ...] = (
    DEFAULT_RULE,
    "edges_net",
    "edges_positive",
    "gae",
    {"rule": "recursive", "of": "gae"},
    "gae_absolute",
    "gae_normalized",
    "gradient_input",
    "rollout",
    "last_layer",
    "best_of",
)
"""Rules compared by default: all except occlusion, which needs one pass per visual token."""


@dataclass(frozen=True)
class RuleResult:
    """Removal curves of one rule.

    Attributes:
        name: Name of the rule and its options.
        retention_ratios: Ratios of the curves, descending from 1.
        least_first: Mean log-probability of the answers over the ratios with the least relevant
            tokens removed first; higher is better.
        most_first: The same with the most relevant tokens removed first; lower is better.
        random: The same in random order.
        same: For each kind of question, the share of answers whose tokens all stay the likeliest
            at each ratio, with the least relevant tokens removed first.
        seconds: Time to explain one question.
    """

    name: str
    retention_ratios: tuple[float, ...]
    least_first: float
    most_first: float
    random: float
    same: dict[str, list[float]]
    seconds: float


def compare_rules(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    rules: Sequence[str | dict[str, Any]] = RULES,
    *,
    retention_ratios: Sequence[float] = (0.5, 0.25, 0.125, 0.0625),
    batch_size: int = 32,
    max_new_tokens: int = 16,
    after_batch: Callable[[int], None] | None = None,
) -> list[RuleResult]:
    """Explain the model's answers by every rule and remove tokens in that order.

    Args:
        model: A model of a supported family.
        processor: Its processor.
        samples: The questions.
        rules: Names, or dicts with the name under "rule" and the options of the rule.
        retention_ratios: Shares of visual tokens to keep, in (0, 1].
        batch_size: Questions per batch.
        max_new_tokens: Longest answer in tokens.
        after_batch: Called with the number of questions after each batch of each rule.
    """
    chosen = [_name_and_options(rule) for rule in rules]
    seconds = [0.0] * len(chosen)
    reports: list[list[FaithfulnessReport]] = [[] for _ in chosen]
    family = explained_family(model)
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        inputs = dict(encode_samples(processor, batch).to(model.device))
        answers = greedy_answers(model, family, inputs, max_new_tokens)
        for number, (name, options) in enumerate(chosen):
            began = time.perf_counter()
            found = relevance(
                model, inputs, answer_ids=answers, rule=name, rule_options=options
            ).samples
            seconds[number] += time.perf_counter() - began
            scores = [sample.scores for sample in found]
            reports[number].append(
                faithfulness(
                    model, inputs, scores, answer_ids=answers, retention_ratios=retention_ratios
                )
            )
            if after_batch is not None:
                after_batch(len(batch))
    return [
        _result(
            name if not options else f"{name} {json.dumps(options)}",
            reports[number],
            samples,
            seconds[number] / len(samples),
        )
        for number, (name, options) in enumerate(chosen)
    ]


def _name_and_options(rule: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(rule, str):
        return rule, {}
    options = dict(rule)
    return options.pop("rule"), options


@dataclass(frozen=True)
class TargetsResult:
    """One backward pass for the sum of an answer's tokens, compared with one per token.

    Attributes:
        rank_correlation: Spearman correlation of the scores, mean over answers of two or more
            tokens.
        same_kept: Share of the best quarter of the visual tokens that both have in common.
        cost_ratio: Time of the single pass divided by the time of one pass per token.
    """

    rank_correlation: float
    same_kept: float
    cost_ratio: float


def compare_targets(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    rule: str = DEFAULT_RULE,
    *,
    batch_size: int = 32,
    max_new_tokens: int = 16,
) -> TargetsResult:
    """Explain answers by their sum, and token by token.

    Raises:
        ValueError: No answer has two tokens or more.
    """
    seconds = {"sum": 0.0, "per_token": 0.0}
    correlations, shared = [], []
    family = explained_family(model)
    for start in range(0, len(samples), batch_size):
        inputs = dict(encode_samples(processor, samples[start : start + batch_size]))
        answers = greedy_answers(model, family, inputs, max_new_tokens)
        scores = {}
        for targets in get_args(Targets):
            began = time.perf_counter()
            found = relevance(model, inputs, answer_ids=answers, rule=rule, targets=targets)
            seconds[targets] += time.perf_counter() - began
            scores[targets] = [sample.scores for sample in found.samples]
        for answer, one, other in zip(answers, scores["sum"], scores["per_token"], strict=True):
            if len(answer) > 1:
                ranks = torch.stack([item.argsort().argsort().double() for item in (one, other)])
                correlations.append(float(torch.corrcoef(ranks)[0, 1]))
                quarter = len(one) // 4
                best = [set(item.topk(quarter).indices.tolist()) for item in (one, other)]
                shared.append(len(best[0] & best[1]) / quarter)
    if not correlations:
        raise ValueError("No answer has two tokens: ask questions with longer answers.")
    return TargetsResult(
        sum(correlations) / len(correlations),
        sum(shared) / len(shared),
        seconds["sum"] / seconds["per_token"],
    )


def _result(
    name: str, reports: Sequence[FaithfulnessReport], samples: Sequence[Sample], seconds: float
) -> RuleResult:
    found = [sample for report in reports for sample in report.samples]
    kinds: dict[str, list[Tensor]] = {}
    for sample, removals in zip(samples, found, strict=True):
        kinds.setdefault(sample.kind, []).append(removals.least_first.matches.double())

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return RuleResult(
        name=name,
        retention_ratios=tuple(found[0].least_first.retention_ratios.tolist()),
        least_first=mean([sample.least_first.area for sample in found]),
        most_first=mean([sample.most_first.area for sample in found]),
        random=mean([sample.random.area for sample in found]),
        same={kind: torch.stack(same).mean(0).tolist() for kind, same in kinds.items()},
        seconds=seconds,
    )


def rules_markdown(results: Sequence[RuleResult], ratio: float) -> str:
    """The results as a Markdown table, with the percentage of unchanged answers at one ratio."""
    place = min(
        range(len(results[0].retention_ratios)),
        key=lambda number: abs(results[0].retention_ratios[number] - ratio),
    )
    kinds = list(results[0].same)
    lines = [
        "| rule | least first | most first | " + " | ".join(kinds) + " | ms |",
        "|---|---|---|" + "---|" * (len(kinds) + 1),
    ]
    for result in results:
        cells = [f"{100 * result.same[kind][place]:.1f}" for kind in kinds]
        lines.append(
            f"| {result.name} | {result.least_first:.3f} | {result.most_first:.3f} | "
            + " | ".join([*cells, f"{1000 * result.seconds:.0f}"])
            + " |"
        )
    random = sum(result.random for result in results) / len(results)
    lines.append(f"| (random order) | {random:.3f} |" + " |" * (len(kinds) + 2))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print areas under the removal curves and the share of answers that do not change."""
    parser = make_parser("lab.benchmarks.rules", __doc__)
    add_model(parser)
    add_questions(parser, per_kind=40)
    parser.add_argument(
        "--rule",
        action="append",
        help='name, or JSON such as {"rule": "recursive", "of": "gae"}; can be repeated',
    )
    parser.add_argument("--kind", action="append", help="kind of question; can be repeated")
    parser.add_argument(
        "--ratio", type=float, default=0.25, help="retention ratio at which answers are counted"
    )
    options = parser.parse_args(arguments)
    model, processor = load_model(options.model, dtype="float32")
    rules = [json.loads(item) if item.startswith("{") else item for item in options.rule or []]
    samples = scene_samples(options.kind or KINDS, options.per_kind, seed=options.seed)
    print(rules_markdown(compare_rules(model, processor, samples, rules or RULES), options.ratio))
    for name in (DEFAULT_RULE, "gae"):
        targets = compare_targets(model, processor, samples, name)
        print(
            f"\nsum against per_token, {name}: rank correlation {targets.rank_correlation:.3f}, "
            f"{targets.same_kept:.0%} of the best quarter in common, "
            f"{targets.cost_ratio:.2f} of the time."
        )


if __name__ == "__main__":
    main()
