"""`relevance`: how much the answers to a batch of prompts depend on each visual token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..checks import check_choice
from ..compression.inputs import TOKEN_TYPES, PromptLayout, read_layout
from ..compression.mixin import TokenCompressionMixin
from ..compression.precision import without_autocast
from ..compression.rewriting import with_whole_features
from ..compression.twin import make_twin
from ..config import Targets as Targets
from ..models.family import ModelFamily
from ..models.registry import model_family
from ..prompt import VisualSpan
from ..rewrite import gather_positions, kept_positions
from .attention_tap import MEMORY_LIMIT
from .explained_twin import explained_twin
from .replay import Replay, make_replay
from .rules import DEFAULT_RULE, Rule, build_rule
from .rules.recursive import RecursiveRule


@dataclass(frozen=True)
class SampleRelevance:
    """What the answer to one prompt depends on.

    Attributes:
        scores: float32 [N], relevance of the prompt's visual tokens in order, over all its images
            and videos; the mean over the answer's tokens.
        per_token: float32 [T, N], relevance for each answer token; None unless requested.
        answer_ids: int64 [T], the explained answer.
        visuals: The prompt's images and videos, with their positions in the caller's sequence and
            their grids.
    """

    scores: Tensor
    per_token: Tensor | None
    answer_ids: Tensor
    visuals: tuple[VisualSpan, ...]


@dataclass(frozen=True)
class RelevanceReport:
    """The relevance of visual tokens for each prompt of a batch, by the rule of that name."""

    samples: tuple[SampleRelevance, ...]
    rule: str


@without_autocast()
def relevance(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    *,
    answer_ids: Sequence[Tensor] | None = None,
    max_new_tokens: int = 64,
    rule: str = DEFAULT_RULE,
    rule_options: Mapping[str, Any] | None = None,
    targets: Targets = "per_token",
    return_per_token: bool = False,
    recursive: bool = False,
    checkpointing: bool = False,
    memory_limit: int = MEMORY_LIMIT,
) -> RelevanceReport:
    """Score how much the answers to a batch of prompts depend on each visual token.

    The uncompressed prompts are replayed with their answers in one forward pass, followed by one
    backward pass per target. No attention map is stored, so memory grows with the length as in an
    ordinary backward pass. A twin does all this: the model is never changed, and other threads may
    use it meanwhile, unless its weights are offloaded.

    Args:
        model: A loaded model of a supported family with a language model head, compressed or not.
        inputs: The processor's output, padded on either side.
        answer_ids: For each prompt, int64 [T] with T ≥ 1, the answer to explain, without the token
            that ends it; by default the model's own greedy answer to the whole prompt.
        max_new_tokens: Length at which the model's own answers are cut off.
        rule: Name of a rule, one of `available_rules()`.
        rule_options: Keyword arguments of the rule.
        targets: "per_token" explains each answer token on its own and averages; "sum" explains the
            sum of their scores in a single backward pass.
        return_per_token: Also report the relevance for each answer token; needs
            `targets="per_token"`.
        recursive: Explain, remove the least relevant tokens, and explain again.
        checkpointing: Keep one layer's activations at a time: less memory for about a third more
            time.
        memory_limit: Bytes of scratch memory per attention layer; a lower limit is slower.

    Returns:
        A report with the scores of each prompt. What these sum to depends on the rule.

    Raises:
        TypeError: `model` is not a Transformers model, or an input has the wrong type.
        ValueError: The family is not supported, a prompt has no visual tokens, an answer has no
            tokens, the attention cannot be intercepted, or inputs do not fit each other.
    """
    check_choice("targets", targets, get_args(Targets))
    if return_per_token and targets == "sum":
        raise ValueError("return_per_token needs targets='per_token', but targets is 'sum'.")
    explainer: Rule = build_rule(rule, rule_options or {})
    if recursive:
        explainer = RecursiveRule(explainer)
    family = explained_family(model)
    if answer_ids is None:
        inputs = encode_once(model, family, inputs)
        answer_ids = greedy_answers(model, family, inputs, max_new_tokens)
    with explained_twin(model, checkpointing=checkpointing) as twin:
        replay = make_replay(twin, family, inputs, answer_ids, memory_limit, checkpointing)
        groups = _target_groups(replay, targets)
        found = explainer.explain(replay, groups, replay.layout.attention_mask)  # [G, B, S]
    samples = []
    for sample, (positions, answer) in enumerate(
        zip(replay.visual_positions, replay.answers, strict=True)
    ):
        own = found[:, sample, positions].detach()  # [G, N]
        scores = own.sum(0) / len(answer)  # [N]
        per_token = own[: len(answer)] if return_per_token else None  # [T, N]
        samples.append(SampleRelevance(scores, per_token, answer, replay.visuals[sample]))
    return RelevanceReport(tuple(samples), rule)


def explained_family(model: Any) -> ModelFamily:
    """The family of a model; raises an error if its answers cannot be explained."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"relevance needs a loaded Transformers model, not {type(model).__name__}: unwrap the "
            "model first."
        )
    stock: Any = model.stock_class if isinstance(model, TokenCompressionMixin) else type(model)
    family = model_family(stock)
    if model.get_output_embeddings() is None:
        raise ValueError(
            f"{type(model).__name__} has no language model head, so there is no answer to explain: "
            "load it with AutoModelForImageTextToText."
        )
    return family


def encode_once(model: Any, family: ModelFamily, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with features in place of pixels, so that the vision part runs only once."""
    return with_whole_features(family, inputs, run_vision(model, family, inputs).encoded)


@without_autocast()
def run_vision(model: Any, family: ModelFamily, inputs: Mapping[str, Any]) -> PromptLayout:
    """Encode the images and videos of a batch of whole prompts.

    Raises:
        TypeError, ValueError: An input is missing or does not fit the others.
    """
    twin = make_twin(model)
    with twin.running(), torch.inference_mode(False), torch.no_grad():
        return read_layout(twin.module, family, inputs)


def greedy_answers(
    model: Any, family: ModelFamily, inputs: Mapping[str, Any], max_new_tokens: int
) -> list[Tensor]:
    """The model's own answers to the whole prompts, int64 [T] each, without the end token."""
    inputs = _padded_on_the_left(inputs, family.padding_id(model))
    twin = make_twin(model)
    with twin.running(), torch.inference_mode(False), torch.no_grad():
        sequences = twin.module.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
        )
    ends = family.turn_end_ids(model)
    answers = []
    for answer in sequences[:, inputs["input_ids"].shape[1] :].tolist():
        length = next((step for step, token in enumerate(answer) if token in ends), len(answer))
        answers.append(torch.tensor(answer[:length], device=sequences.device, dtype=torch.long))
    return answers


def _padded_on_the_left(inputs: Mapping[str, Any], padding_id: int) -> Mapping[str, Any]:
    """The same prompts with their padding on the left, where `generate` needs it."""
    mask = inputs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or bool(mask[:, -1].all()):
        return inputs
    index = kept_positions(mask.bool(), "left")  # [B, S]
    moved = {"attention_mask": (index >= 0).to(mask)}
    fills = {"input_ids": padding_id, **dict.fromkeys(("position_ids", *TOKEN_TYPES), 0)}
    for name, fill in fills.items():
        if inputs.get(name) is not None:
            moved[name] = gather_positions(inputs[name], index, fill)
    return {**inputs, **moved}


def _target_groups(replay: Replay, targets: Targets) -> Tensor:
    """The answer tokens that make up each target: bool [G, B, T]."""
    present = replay.prediction_positions >= 0  # [B, T]
    if targets == "sum":
        return present[None]  # [1, B, T]
    # Target g is answer token g of every sample.
    tokens = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)  # [T, T]
    return present & tokens[:, None]  # [T, B, T]
