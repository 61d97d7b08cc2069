"""The replay of an answer: prompts followed by their answers, run in one forward pass.

Sequences are padded on the right, which causal attention never sees. No attention mask is needed,
so memory stays linear in the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..compression.inputs import PromptLayout, read_layout
from ..compression.rewriting import next_position, rewrite_prompt
from ..config import TokenCompressionConfig
from ..models.family import ModelFamily
from ..prompt import Modality, VisualSpan
from ..rewrite import gather_positions, kept_positions
from .attention_tap import MEMORY_LIMIT

Target = Literal["logit", "log_probability", "margin"]
"""The score of an answer token to explain: its logit, its log-probability, or its logit minus that
of the strongest other token."""

_TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
_ORIGINAL_POSITION_IDS = TokenCompressionConfig()


@dataclass(frozen=True)
class ReplayPass:
    """Inputs of one forward pass over B prompts with their answers, K tokens each.

    Attributes:
        model: The model to run.
        inputs: Keyword arguments of its forward.
        answer_ids: int64 [B, T], the answers, -1 after their end.
        prediction_positions: int64 [B, T], the position that predicts each answer token, -1 after
            the end.
        attention_mask: bool [B, K], False on padding.
        visual_mask: bool [B, K], True on visual tokens.
        leaves: Tensors [n, D] to take gradients of: the features of each image or video.
        leaf_positions: For each leaf its sample, and int64 [n] its positions, -1 for removed
            tokens.
        memory_limit: Bytes of scratch memory that one attention layer may take.
    """

    model: Any
    inputs: Mapping[str, Any]
    answer_ids: Tensor
    prediction_positions: Tensor
    attention_mask: Tensor
    visual_mask: Tensor
    leaves: tuple[Tensor, ...]
    leaf_positions: tuple[tuple[int, Tensor], ...]
    memory_limit: int = MEMORY_LIMIT

    def logits(self) -> Tensor:
        """Logits at the positions that predict the answers: float32 [B, T, vocabulary]."""
        # Compute logits at the positions that any sample needs.
        predicting = self.prediction_positions >= 0
        positions = self.prediction_positions[predicting].unique()  # [P], sorted
        # An index on the CPU fits the logits of a model that is spread over devices.
        output = self.model(**self.inputs, logits_to_keep=positions.cpu(), use_cache=False)
        # Pick those of each sample.
        place = torch.searchsorted(positions, self.prediction_positions.clamp(min=0))  # [B, T]
        place = place.clamp(max=len(positions) - 1)
        samples = torch.arange(len(place), device=place.device)[:, None]  # [B, 1]
        picked: Tensor = output.logits.to(place.device)[samples, place].float()  # [B, T, V]
        return picked

    def target_scores(self, targets: Tensor, target: Target) -> Tensor:
        """The scores to explain: float32 [G], summed over the samples, which are independent.

        Args:
            targets: bool [G, B, T], the answer tokens whose scores are summed in each target.
            target: The score of a token.
        """
        logits = self.logits()  # [B, T, V]
        if target == "log_probability":
            logits = logits.log_softmax(-1)
        ids = self.answer_ids.clamp(min=0)[..., None]  # [B, T, 1]
        chosen = logits.gather(-1, ids).squeeze(-1)  # [B, T]
        if target == "margin":
            chosen = chosen - logits.scatter(-1, ids, float("-inf")).amax(-1)  # [B, T]
        return (chosen * targets).sum(dim=(1, 2))  # [G]

    def answer_log_probabilities(self) -> tuple[Tensor, Tensor]:
        """How likely each answer token is, and whether it is the likeliest.

        Returns:
            float32 [B, T], zero after an answer's end, and bool [B, T], True after its end.
        """
        with torch.no_grad():
            logits = self.logits()  # [B, T, V]
        present = self.prediction_positions >= 0
        ids = self.answer_ids.clamp(min=0)
        chosen = logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)  # [B, T]
        return chosen.masked_fill(~present, 0.0), (logits.argmax(-1) == ids) | ~present


@dataclass(frozen=True)
class Replay:
    """Prompts with their answers, from which any visual tokens can be removed.

    Attributes:
        model: The model to run.
        family: Its family.
        inputs: Keyword arguments of the stock forward besides the tokens.
        layout: Prompts and answers, S tokens each, padded on the right.
        answer_ids: int64 [B, T], -1 after their end.
        prediction_positions: int64 [B, T], -1 after their end.
        visuals: For each prompt its images and videos, at positions in the caller's sequence.
        memory_limit: Bytes of scratch memory that one attention layer may take.
    """

    model: Any
    family: ModelFamily
    inputs: Mapping[str, Any]
    layout: PromptLayout
    answer_ids: Tensor
    prediction_positions: Tensor
    visuals: tuple[tuple[VisualSpan, ...], ...]
    memory_limit: int = MEMORY_LIMIT

    @property
    def visual_positions(self) -> list[Tensor]:
        """For each prompt, int64 [N], the positions of its visual tokens in order."""
        return [torch.cat([span.positions for span in spans]) for spans in self.layout.visuals]

    @property
    def answers(self) -> list[Tensor]:
        """For each prompt, int64 [T], its answer."""
        return [answer[answer >= 0] for answer in self.answer_ids]

    def keep_best(self, scores: Sequence[Tensor], ratio: float) -> Tensor:
        """Keep text, answers, and the best-scored share of each prompt's visual tokens.

        Args:
            scores: For each prompt, float [N].
            ratio: Share of the visual tokens to keep, at least one token.

        Returns:
            bool [B, S], True on the tokens to keep.
        """
        keep = self.layout.attention_mask.clone()
        for sample, (positions, own) in enumerate(zip(self.visual_positions, scores, strict=True)):
            order = own.argsort(descending=True, stable=True)
            keep[sample, positions[order[max(1, round(ratio * len(positions))) :]]] = False
        return keep

    def select(self, samples: Sequence[int]) -> Replay:
        """The given samples in the given order; a sample may occur several times."""
        index = torch.tensor(samples, device=self.layout.input_ids.device)
        # Features and spans of each modality that the samples have.
        encoded, spans = {}, {}
        for modality, all_spans in self.layout.spans.items():
            features = _features_by_sample(self.layout, modality)
            picked = [feature for sample in samples for feature in features[sample]]
            if not picked:
                continue
            spans[modality] = tuple(all_spans[sample] for sample in samples)
            encoded[modality] = replace(self.layout.encoded[modality], features=picked)
        layout = replace(
            self.layout,
            input_ids=self.layout.input_ids[index],
            attention_mask=self.layout.attention_mask[index],
            position_ids=self.layout.position_ids.index_select(-2, index),
            encoded=encoded,
            spans=spans,
        )
        types = {name: self.inputs[name][index] for name in _TOKEN_TYPES if name in self.inputs}
        return replace(
            self,
            inputs={**self.inputs, **types},
            layout=layout,
            answer_ids=self.answer_ids[index],
            prediction_positions=self.prediction_positions[index],
            visuals=tuple(self.visuals[sample] for sample in samples),
        )

    def forward_pass(self, keep: Tensor) -> ReplayPass:
        """Inputs of a forward pass with the kept tokens only.

        Args:
            keep: bool [B, S], the tokens to keep, among them all of text and answers.
        """
        # Make leaves of the visual features.
        leaves: list[Tensor] = []
        encoded = {}
        for modality, visuals in self.layout.encoded.items():
            features = [item.detach().clone().requires_grad_() for item in visuals.features]
            encoded[modality] = replace(visuals, features=features)
            leaves += features
        # Remove tokens as compression does.
        rewritten = rewrite_prompt(
            self.model,
            self.family,
            _ORIGINAL_POSITION_IDS,
            {
                **self.inputs,
                "input_ids": self.layout.input_ids,
                "attention_mask": self.layout.attention_mask.long(),
            },
            replace(self.layout, encoded=encoded),
            keep,
            "right",
        )
        # Position in the pass of every token, -1 for removed ones.
        place = (keep.long().cumsum(-1) - 1).masked_fill(~keep, -1)  # [B, S]
        index = kept_positions(keep, "right")  # [B, K]
        return ReplayPass(
            model=self.model,
            inputs=rewritten.inputs,
            answer_ids=self.answer_ids,
            prediction_positions=gather_positions(place, self.prediction_positions, -1),  # [B, T]
            attention_mask=index >= 0,
            visual_mask=gather_positions(self.layout.visual_mask(), index, False),  # [B, K]
            leaves=tuple(leaves),
            leaf_positions=tuple(
                (sample, place[sample, span.positions])
                for all_spans in self.layout.spans.values()
                for sample, spans in enumerate(all_spans)
                for span in spans
            ),
            memory_limit=self.memory_limit,
        )


def _features_by_sample(layout: PromptLayout, modality: Modality) -> list[list[Tensor]]:
    features = iter(layout.encoded[modality].features)
    return [[next(features) for _ in spans] for spans in layout.spans[modality]]


def make_replay(
    model: Any,
    family: ModelFamily,
    inputs: Mapping[str, Any],
    answer_ids: Sequence[Tensor],
    memory_limit: int = MEMORY_LIMIT,
) -> Replay:
    """Append answers to their prompts.

    Args:
        model: A model with a language model head.
        family: Its family.
        inputs: Keyword arguments of the stock forward, as the processor returned them.
        answer_ids: For each prompt, int64 [T].
        memory_limit: Bytes of scratch memory that one attention layer may take.

    Raises:
        TypeError, ValueError: An input is missing or does not fit the others, an answer has no
            tokens, or a prompt has no visual tokens.
    """
    with torch.inference_mode(False), torch.no_grad():
        # Tensors made in inference mode cannot take part in gradients.
        given = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        # Run the vision part once, for all passes.
        layout = read_layout(model, family, given)
        _check_answers(len(layout.input_ids), answer_ids)
        _check_visuals(layout)
        visuals = layout.visuals
        prompts = kept_positions(layout.attention_mask, "right")  # [B, prompt length]
        layout, predictions, answers = _append_answers(
            layout, prompts, answer_ids, family.padding_id(model)
        )
    # Pass on the other inputs, with token types extended by those of text.
    others: dict[str, Any] = {}
    consumed = {*family.pixel_inputs.values(), *family.consumed_inputs, *_REPLACED_INPUTS}
    for name, value in given.items():
        if name in _TOKEN_TYPES:
            types = gather_positions(value, prompts, 0)
            others[name] = pad(types, (0, layout.input_ids.shape[1] - types.shape[1]))  # [B, S]
        elif name not in consumed:
            others[name] = value
    return Replay(model, family, others, layout, answers, predictions, visuals, memory_limit)


# Inputs that a replay makes itself, or that belong to generation.
_REPLACED_INPUTS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "labels",
    "mm_encoder_outputs",
    "use_cache",
    "cache",
    "past_key_values",
    "logits_to_keep",
)


def _check_answers(prompts: int, answer_ids: Sequence[Tensor]) -> None:
    if len(answer_ids) != prompts:
        raise ValueError(
            f"answer_ids must have one tensor per prompt, {prompts}, but has {len(answer_ids)}."
        )
    for sample, answer in enumerate(answer_ids):
        if not isinstance(answer, Tensor) or answer.ndim != 1 or answer.is_floating_point():
            kind = answer.dtype if isinstance(answer, Tensor) else type(answer).__name__
            raise TypeError(
                f"The answer to prompt {sample} must be a 1-D tensor of token ids, not {kind}"
                f"{f' {list(answer.shape)}' if isinstance(answer, Tensor) else ''}."
            )
        if len(answer) == 0:
            raise ValueError(
                f"The answer to prompt {sample} has no tokens to explain: remove the prompt, or "
                "pass other answer_ids."
            )


def _check_visuals(layout: PromptLayout) -> None:
    visuals = layout.visuals if layout.spans else ((),) * len(layout.input_ids)
    for sample, spans in enumerate(visuals):
        if not spans:
            raise ValueError(
                f"Prompt {sample} has no visual tokens to score: pass prompts with an image or a "
                "video, and everything that the processor returned."
            )


def _append_answers(
    layout: PromptLayout, prompts: Tensor, answer_ids: Sequence[Tensor], padding_id: int
) -> tuple[PromptLayout, Tensor, Tensor]:
    """Append answers to prompts.

    Args:
        layout: The prompts alone, padded on either side.
        prompts: int64 [B, P], positions of the prompts' tokens, -1 on padding on the right.
        answer_ids: For each prompt, int64 [T].
        padding_id: Token id of padding.

    Returns:
        The layout of prompts with answers, padded on the right, int64 [B, T] the positions that
        predict the answers, and int64 [B, T] the answers, both -1 after an answer's end.
    """
    device = layout.input_ids.device
    mask = layout.attention_mask
    lengths = mask.sum(1).tolist()
    # Leave out the last token of each answer: what it predicts is not explained.
    totals = [length + len(answer) - 1 for length, answer in zip(lengths, answer_ids, strict=True)]
    extra = max(totals) - prompts.shape[1]
    # Move prompts to the left, and make room for the longest total length S.
    ids = gather_positions(layout.input_ids, prompts, padding_id)  # [B, P]
    ids = pad(ids, (0, extra), value=padding_id)  # [B, S]
    position_ids = pad(gather_positions(layout.position_ids, prompts, 0), (0, extra))  # [..., B, S]
    following = next_position(layout.position_ids, mask)  # [..., B, 1]
    predictions = torch.full((len(lengths), max(map(len, answer_ids))), -1, device=device)  # [B, T]
    answers = torch.full_like(predictions, -1)  # [B, T]
    for sample, (length, answer) in enumerate(zip(lengths, answer_ids, strict=True)):
        answer = answer.to(device)
        ids[sample, length : totals[sample]] = answer[:-1]
        # Count on through the padding: a gap in position ids would mark a packed sequence.
        steps = torch.arange(ids.shape[1] - length, device=device)
        position_ids[..., sample, length:] = following[..., sample, :] + steps
        predictions[sample, : len(answer)] = torch.arange(length - 1, totals[sample], device=device)
        answers[sample, : len(answer)] = answer
    # Spans move with the prompts.
    rank = mask.long().cumsum(-1) - 1  # [B, length of the batch]
    spans = {
        modality: tuple(
            tuple(replace(span, positions=rank[sample][span.positions]) for span in own)
            for sample, own in enumerate(by_sample)
        )
        for modality, by_sample in layout.spans.items()
    }
    positions = torch.arange(ids.shape[1], device=device)
    moved = replace(
        layout,
        input_ids=ids,
        attention_mask=positions < torch.tensor(totals, device=device)[:, None],  # [B, S]
        position_ids=position_ids,
        spans=spans,
    )
    return moved, predictions, answers
