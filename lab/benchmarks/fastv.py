"""FastV (https://arxiv.org/abs/2403.06764) as a reference: drop tokens inside the language model.

    python -m lab.benchmarks.fastv --model FOLDER --source drawings --per-kind 25 \
      --retention-ratio 0.5,0.25

The layers below `--layer` see every token; from there on, only the visual tokens that the last
token of the prompt attends to most in the layer before. A ratio is that of pruning at the input
with the same number of tokens in all layers together, so the layers above keep fewer. Tokens are
masked rather than dropped, which gives the same answers and shows nothing of speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from hf_token_compress import Scorer, compress, prepare_inputs, uncompress
from hf_token_compress.compression.probe import decoder_layers
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.metrics import is_right
from hf_token_compress.data.sample import Sample
from hf_token_compress.evaluation.answering import answer_batch
from hf_token_compress.prompt import MultimodalPrompt
from hf_token_compress.scorers.attention import instruction_attention
from hf_token_compress.scoring_layer import ScoringLayer

from ..arguments import add_model, add_questions, add_retention_ratios, make_parser, positive
from ..loading import load_model
from ..testbed.arguments import add_source, samples_of


class LastTokenAttention(Scorer):
    """Attention of the last token of each prompt in one decoder layer, mean over heads.

    Args:
        layer: Number of the layer, counted from 0.
    """

    needs = frozenset({"scoring_layer"})

    def __init__(self, layer: int) -> None:
        self.scoring_depth = layer

    @override
    def query_mask(self, prompt: MultimodalPrompt) -> Tensor:
        place = torch.arange(prompt.attention_mask.shape[1], device=prompt.attention_mask.device)
        last = torch.where(prompt.attention_mask, place, -1).amax(dim=1, keepdim=True)  # [B, 1]
        return place == last  # [B, S]

    @override
    def score(self, prompt: MultimodalPrompt, *, scoring_layer: ScoringLayer) -> Tensor:
        return instruction_attention(scoring_layer)


def share_above(ratio: float, layers: int, pruning_layer: int) -> float:
    """Share of the visual tokens that the layers from `pruning_layer` on keep.

    K of L layers with all tokens, and the others with this share, hold as many tokens in sum as L
    layers with the share `ratio`.

    Raises:
        ValueError: The layers below hold more already.
    """
    share = (ratio * layers - pruning_layer) / (layers - pruning_layer)
    if share <= 0:
        raise ValueError(
            f"{pruning_layer} of {layers} layers with all tokens cost as much as a ratio of "
            f"{pruning_layer / layers:.3f}: it must be above that, but it is {ratio}."
        )
    return share


@contextmanager
def masked_from(model: Any, pruning_layer: int, keep: Tensor) -> Iterator[None]:
    """Hide tokens from the layers from `pruning_layer` on, inside the `with` block.

    Args:
        model: A model with eager attention, whose masks are tensors.
        pruning_layer: The first layer that does not see them.
        keep: bool [B, S], False on tokens to hide.
    """

    def hide(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs["attention_mask"].clone()  # [B, 1, queries, keys]
        hidden = (~keep).nonzero(as_tuple=True)
        mask[hidden[0], :, :, hidden[1]] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    layers = list(decoder_layers(model.get_decoder()))[pruning_layer:]
    hooks = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def kept_inside(
    model: Any, inputs: dict[str, Any], ratio: float, pruning_layer: int
) -> tuple[Tensor, list[Tensor]]:
    """The tokens that FastV keeps.

    Args:
        model: An uncompressed model.
        inputs: What its processor returned.
        ratio: Share of the visual tokens, as for `share_above`.
        pruning_layer: K, at least 1.

    Returns:
        bool [B, S], and for each prompt which of its visual tokens these are, bool [N].
    """
    layers = len(decoder_layers(model.get_decoder()))
    setting = {"min_visual_tokens": 0, "min_tokens_per_visual": 0, "structure_share": 0.0}
    compress(model, {**setting, "retention_ratio": share_above(ratio, layers, pruning_layer)})
    try:
        model.token_compression.scorer = LastTokenAttention(pruning_layer - 1)
        with torch.inference_mode():
            prepare_inputs(model, **inputs)
        samples = model.token_compression.last.samples
    finally:
        uncompress(model)
    keep = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for number, sample in enumerate(samples):
        keep[number, sample.kept_indices] = True
    return keep, [sample.kept_visual for sample in samples]


def measure_fastv(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    ratio: float,
    *,
    pruning_layer: int = 2,
    batch_size: int = 8,
    max_new_tokens: int = 16,
) -> dict[str, list[bool]]:
    """Which answers are right, by kind of question.

    Args:
        model: An uncompressed model with eager attention.
        processor: Its processor.
        samples: The questions.
        ratio: Share of the visual tokens of pruning at the input with the same FLOPs.
        pruning_layer: The first layer without the others.
        batch_size: Questions per batch.
        max_new_tokens: Longest answer.

    Raises:
        ValueError: The layers below `pruning_layer` cost more than the ratio.
    """
    right: dict[str, list[bool]] = {}
    for start in range(0, len(samples), batch_size):
        batch = list(samples[start : start + batch_size])
        inputs = dict(encode_samples(processor, batch).to(model.device))
        keep, _ = kept_inside(model, inputs, ratio, pruning_layer)
        with masked_from(model, pruning_layer, keep):
            texts = answer_batch(model, processor, inputs, max_new_tokens).texts
        for sample, text in zip(batch, texts, strict=True):
            right.setdefault(str(sample.kind), []).append(is_right(text, sample))
    return right


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each ratio."""
    parser = make_parser("lab.benchmarks.fastv", __doc__)
    add_model(parser, default=None)
    add_source(parser)
    add_questions(parser, per_kind=25)
    add_retention_ratios(parser, default=(0.5, 0.25))
    parser.add_argument("--layer", type=positive, default=2, help="first layer with fewer tokens")
    parser.add_argument("--batch-size", type=positive, default=8, help="questions per batch")
    options = parser.parse_args(arguments)
    samples = samples_of(options)
    model, processor = load_model(options.model, attn_implementation="eager")
    for ratio in options.retention_ratios:
        right = measure_fastv(
            model,
            processor,
            samples,
            ratio,
            pruning_layer=options.layer,
            batch_size=options.batch_size,
        )
        kinds = ", ".join(f"{kind} {sum(own)}/{len(own)}" for kind, own in right.items())
        total = [answer for own in right.values() for answer in own]
        print(f"{ratio}: {100 * sum(total) / len(total):.1f} % of {len(total)} ({kinds})")


if __name__ == "__main__":
    main()
