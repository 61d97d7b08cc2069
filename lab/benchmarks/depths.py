"""How well the attention of each decoder layer finds what the answer depends on.

    python -m lab.benchmarks.depths --model FOLDER --source drawings --per-kind 30 \
      --retention-ratio 0.5,0.25,0.1 --markdown

"attention@N" is the attention from the question to the visual tokens in decoder layer N (counted
from 0, or "middle" or "last"); the layers below it run on the whole prompt. "rollout" is attention
rollout over all layers, for the query that predicts the answer's first token. "truth" is the
oracle, which keeps the relevant tokens, and "random" keeps random ones. "relevance" explains the
model's own answer. It takes far longer than the others and is measured only if it is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_token_compress.evaluation import (
    ConfiguredScorer,
    RetentionResult,
    measure_retention,
    retention_markdown,
)
from hf_token_compress.evaluation.settings import TRUTH

from ..arguments import (
    add_model,
    add_questions,
    add_retention_ratios,
    comma_list,
    make_parser,
    positive,
)
from ..loading import load_model
from ..testbed.arguments import add_source, samples_of

SCORERS = (TRUTH, "attention@0", "attention@middle", "attention@last", "rollout", "random")

_ATTENTION = "attention@"
# The answer is not known yet when its first token is predicted.
_ROLLOUT: dict[str, Any] = {"rule": "rollout", "max_new_tokens": 1, "targets": "sum"}


def scorer_at_depth(name: str, layers: int) -> str | ConfiguredScorer:
    """The scorer with this name.

    Args:
        name: "attention@N", "attention@middle", "attention@last", "rollout", or the name of a
            scorer as `measure_retention` takes it.
        layers: Decoder layers of the model.

    Raises:
        ValueError: The model has no such layer.
    """
    if name == "rollout":
        return ConfiguredScorer(name, "relevance", _ROLLOUT)
    if not name.startswith(_ATTENTION):
        return name
    depth = name.removeprefix(_ATTENTION)
    named = {"middle": layers // 2, "last": layers - 1}
    if depth not in named and not (depth.isdecimal() and int(depth) < layers):
        raise ValueError(
            f"There is no layer for {name!r}: write 0 to {layers - 1}, middle or last after the @."
        )
    layer = named.get(depth) if depth in named else int(depth)
    return ConfiguredScorer(name, "attention", {"scoring_depth": layer})


def measure_depths(
    model: Any, processor: Any, samples: Sequence[Any], scorers: Sequence[str], **options: Any
) -> list[RetentionResult]:
    """Accuracy by scorer and retention ratio, as `measure_retention` returns it.

    Tokens on no grid are scored like all others, so that only scores decide.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: The questions.
        scorers: Names as `scorer_at_depth` takes them.
        **options: Passed to `measure_retention`.

    Raises:
        ValueError: There is no such layer or no such scorer.
    """
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    chosen = [scorer_at_depth(name, layers) for name in scorers]
    return measure_retention(
        model, processor, samples, scorers=chosen, structure_share=0.0, **options
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser("lab.benchmarks.depths", __doc__)
    add_model(parser, default=None)
    add_source(parser)
    add_questions(parser, per_kind=30)
    add_retention_ratios(parser)
    parser.add_argument(
        "--scorer",
        dest="scorers",
        metavar="SCORERS",
        type=comma_list(str),
        default=list(SCORERS),
        help="scorers, between commas",
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="questions per batch")
    parser.add_argument("--dtype", default="auto", help="dtype of the model")
    parser.add_argument("--device", default="cpu", help="device of the model")
    parser.add_argument("--markdown", action="store_true", help="print only the table")
    options = parser.parse_args(arguments)
    samples = samples_of(options)
    model, processor = load_model(options.model, dtype=options.dtype)
    results = measure_depths(
        model.to(options.device),
        processor,
        samples,
        options.scorers,
        retention_ratios=options.retention_ratios,
        batch_size=options.batch_size,
    )
    if not options.markdown:
        print(f"{options.model}: right answers in percent, {len(samples)} questions\n")
    print(retention_markdown(results))


if __name__ == "__main__":
    main()
