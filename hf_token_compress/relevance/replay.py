"""The replay of an answer: prompts followed by their answers, run in one forward pass.

Sequences are padded on the right, which causal attention never sees. Where attention is causal, no
mask is needed, so memory stays linear in the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..compression.inputs import TOKEN_TYPES, PromptLayout, read_layout
from ..compression.rewriting import next_position, rewrite_prompt
from ..config import TokenCompressionConfig
from ..models.family import ModelFamily
from ..prompt import VisualSpan
from ..rewrite import gather_positions, kept_positions
from ..selection import KeptTokens
from .attention_tap import MEMORY_LIMIT
from .hidden_answers import answers_are_hidden

Target = Literal["logit", "log_probability", "margin"]
"""The score of an answer token to explain: its logit, its log-probability, or its logit minus that
of the strongest other token."""

_ORIGINAL_POSITION_IDS = TokenCompressionConfig()


@dataclass(frozen=True)
class ReplayPass:
    """Inputs of one forward pass over B prompts with their answers, K tokens each.

    Attributes:
        model: The model to run: a twin of the caller's.
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
        checkpointing: Whether to keep one layer's activations at a time.
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
    checkpointing: bool = False

    def logits(self) -> Tensor:
        """Logits at the positions that predict the answers: float32 [B, T, vocabulary]."""
        # Compute logits at the positions that any sample needs.
        predicting = self.prediction_positions >= 0
        positions = self.prediction_positions[predicting].unique()  # [P], sorted
        # An index on the CPU fits the logits of a model that is spread over devices.
        output = self.model(**self.inputs, logits_to_keep=positions.cpu(), use_cache=False)
        logits = output.logits
        if logits.shape[1] != len(positions):
            # Some forwards ignore `logits_to_keep`.
            logits = logits[:, positions.to(logits.device)]  # [B, P, V]
        # Pick those of each sample.
        place = torch.searchsorted(positions, self.prediction_positions.clamp(min=0))  # [B, T]
        samples = torch.arange(len(place), device=place.device)[:, None]  # [B, 1]
        return logits.to(place.device)[samples, place].float()  # [B, T, V]

    def target_scores(self, targets: Tensor, target: Target) -> Tensor:
        """Float32 [G], the scores of the answer tokens that `targets`, bool [G, B, T], adds up."""
        logits = self.logits()  # [B, T, V]
        if target == "log_probability":
            logits = logits.log_softmax(-1)
        ids = self.answer_ids.clamp(min=0)[..., None]  # [B, T, 1]
        chosen = logits.gather(-1, ids).squeeze(-1)  # [B, T]
        if target == "margin":
            chosen = chosen - logits.scatter(-1, ids, float("-inf")).amax(-1)  # [B, T]
        return (chosen * targets).sum(dim=(1, 2))  # [G]

    def answer_log_probabilities(self) -> tuple[Tensor, Tensor]:
        """How likely each answer token is, float32 [B, T], and whether it is the likeliest, bool.

        After an answer's end they are 0 and True.
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
        model: The model to run: a twin of the caller's.
        family: Its family.
        inputs: Keyword arguments of the stock forward besides the tokens.
        layout: Prompts and answers, S tokens each, padded on the right.
        answer_ids: int64 [B, T], -1 after their end.
        prediction_positions: int64 [B, T], -1 after their end.
        visuals: For each prompt its images and videos, at positions in the caller's sequence.
        memory_limit: Bytes of scratch memory that one attention layer may take.
        checkpointing: Whether to keep one layer's activations at a time.
    """

    model: Any
    family: ModelFamily
    inputs: Mapping[str, Any]
    layout: PromptLayout
    answer_ids: Tensor
    prediction_positions: Tensor
    visuals: tuple[tuple[VisualSpan, ...], ...]
    memory_limit: int = MEMORY_LIMIT
    checkpointing: bool = False

    @property
    def visual_positions(self) -> list[Tensor]:
        """For each prompt, int64 [N], the positions of its visual tokens in order."""
        return [torch.cat([span.positions for span in spans]) for spans in self.layout.visuals]

    @property
    def answers(self) -> list[Tensor]:
        """For each prompt, int64 [T], its answer."""
        return [answer[answer >= 0] for answer in self.answer_ids]

    def keep_best(self, scores: Sequence[Tensor], ratio: float) -> Tensor:
        """Mark text, answers, and the best-scored share of each prompt's visual tokens.

        Args:
            scores: For each prompt, float [N].
            ratio: Share of the visual tokens to keep, at least one token.

        Returns:
            bool [B, S].
        """
        keep = self.layout.attention_mask.clone()
        for sample, (positions, own) in enumerate(zip(self.visual_positions, scores, strict=True)):
            order = own.argsort(descending=True, stable=True).cpu()
            keep[sample, positions[order[max(1, round(ratio * len(positions))) :]]] = False
        return keep

    def select(self, samples: Sequence[int]) -> Replay:
        """The given samples in the given order; a sample may occur several times."""
        index = torch.tensor(samples, device=self.layout.input_ids.device)
        # Features and spans of each modality that the samples have.
        encoded = self.layout.encoded_of(samples)
        spans = {
            modality: tuple(self.layout.spans[modality][sample] for sample in samples)
            for modality in encoded
        }
        layout = replace(
            self.layout,
            input_ids=self.layout.input_ids[index],
            attention_mask=self.layout.attention_mask[index],
            position_ids=self.layout.position_ids.index_select(-2, index),
            encoded=encoded,
            spans=spans,
            known=None,
            placed=None,
        )
        types = {name: self.inputs[name][index] for name in TOKEN_TYPES if name in self.inputs}
        return replace(
            self,
            inputs={**self.inputs, **types},
            layout=layout,
            answer_ids=self.answer_ids[index],
            prediction_positions=self.prediction_positions[index],
            visuals=tuple(self.visuals[sample] for sample in samples),
        )

    def forward_pass(self, keep: Tensor) -> ReplayPass:
        """A forward pass over the tokens in `keep`, bool [B, S]: all but some visual tokens."""
        # Make leaves of the visual features.
        leaves: list[Tensor] = []
        encoded = {}
        for modality, visuals in self.layout.encoded.items():
            features = [item.detach().clone().requires_grad_() for item in visuals.features]
            encoded[modality] = replace(visuals, features=features)
            leaves += features
        # Remove tokens as compression does.
        tokens = {
            "input_ids": self.layout.input_ids,
            "attention_mask": self.layout.attention_mask.long(),
        }
        rewritten = rewrite_prompt(
            self.model,
            self.family,
            _ORIGINAL_POSITION_IDS,
            {**self.inputs, **tokens},
            replace(self.layout, encoded=encoded),
            KeptTokens.read(keep),
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
            checkpointing=self.checkpointing,
        )


def make_replay(
    model: Any,
    family: ModelFamily,
    inputs: Mapping[str, Any],
    answer_ids: Sequence[Tensor],
    memory_limit: int = MEMORY_LIMIT,
    checkpointing: bool = False,
) -> Replay:
    """Append answers, for each prompt int64 [T], to the prompts in the processor's output.

    Raises:
        TypeError, ValueError: An input does not fit, a prompt has no visual tokens or no answer, or
            it would see the answer.
    """
    with torch.inference_mode(False), torch.no_grad():
        # Tensors made in inference mode cannot take part in gradients: copy them.
        given = dict(inputs)
        given.update(
            (name, value.clone()) for name, value in inputs.items() if isinstance(value, Tensor)
        )
        # Run the vision part once, for all passes.
        layout = read_layout(model, family, given)
        visuals = layout.visuals
        _check(answer_ids, visuals or ((),) * len(layout.input_ids))
        longs = [answer.to(layout.input_ids.device, torch.long) for answer in answer_ids]
        answers = pad_sequence(longs, batch_first=True, padding_value=-1)  # [B, T]
        layout, prompts, predictions = _append(answers, layout, family.padding_id(model))
    # Pass on the other inputs.
    consumed = {*family.consumed_inputs(model), *_REPLACED_INPUTS}
    others = {name: value for name, value in given.items() if name not in consumed}
    made = (layout, answers, predictions, visuals, memory_limit, checkpointing)
    replay = Replay(model, family, others, *made)
    # Give answers the type of text, or, where text joins the prompt's block of tokens that all see
    # each other, that of what follows it.
    for answer_type in (0, 1):
        fills = {**dict.fromkeys(TOKEN_TYPES, 0), "token_type_ids": answer_type}
        types = {
            name: gather_positions(given[name], prompts, fill)  # [B, S]
            for name, fill in fills.items()
            if name in given
        }
        replay = replace(replay, inputs={**others, **types})
        inputs = replay.forward_pass(layout.attention_mask).inputs
        if answers_are_hidden(model, inputs, predictions[:, 0] + 1):
            return replay
    raise ValueError(
        f"The tokens of a prompt of {type(model).__name__} would see the answer that is replayed "
        "after them: pass everything that the processor returned, such as token_type_ids."
    )


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


def _check(answer_ids: Sequence[Tensor], visuals: Sequence[Sequence[VisualSpan]]) -> None:
    """Raise unless every prompt has an answer and visual tokens."""
    if len(answer_ids) != len(visuals):
        raise ValueError(
            f"answer_ids must have one tensor per prompt, {len(visuals)}, but has "
            f"{len(answer_ids)}."
        )
    for sample, answer in enumerate(answer_ids):
        if not isinstance(answer, Tensor) or answer.ndim != 1 or answer.is_floating_point():
            kind = type(answer).__name__
            if isinstance(answer, Tensor):
                kind = f"{answer.dtype} {list(answer.shape)}"
            raise TypeError(
                f"The answer to prompt {sample} must be a 1-D tensor of token ids, not {kind}."
            )
        if len(answer) == 0:
            raise ValueError(
                f"The answer to prompt {sample} has no tokens to explain: remove the prompt, or "
                "pass other answer_ids."
            )
    for sample, spans in enumerate(visuals):
        if not spans:
            raise ValueError(
                f"Prompt {sample} has no visual tokens to score: pass prompts with an image or a "
                "video, and everything that the processor returned."
            )


def _append(
    answers: Tensor, layout: PromptLayout, padding_id: int
) -> tuple[PromptLayout, Tensor, Tensor]:
    """Append answers, int64 [B, T] with -1 after their end, to the prompts of a layout.

    Returns:
        The layout of prompts with answers, padded on the right; int64 [B, S] the positions of the
        prompts' tokens in the old layout, -1 after their end; and int64 [B, T] the positions that
        predict the answers in the new layout, -1 after their end.
    """
    mask = layout.attention_mask
    lengths = mask.sum(1, keepdim=True)  # [B, 1]
    # Leave out the last token of each answer: what it predicts is not explained.
    totals = lengths + (answers >= 0).sum(1, keepdim=True) - 1  # [B, 1]
    # Move prompts to the left, and make room for the longest total length S.
    prompts = kept_positions(mask, "right")  # [B, longest prompt]
    prompts = pad(prompts, (0, int(totals.max()) - prompts.shape[1]), value=-1)  # [B, S]
    positions = torch.arange(prompts.shape[1], device=mask.device)
    ids = gather_positions(layout.input_ids, prompts, padding_id)  # [B, S]
    steps = torch.arange(answers.shape[1], device=mask.device)
    predictions = (lengths - 1 + steps).masked_fill(answers < 0, -1)  # [B, T]
    sample, step = (predictions[:, 1:] >= 0).nonzero(as_tuple=True)
    ids[sample, predictions[sample, step + 1]] = answers[sample, step]
    # Count on through the padding: a gap in position ids would mark a packed sequence.
    position_ids = gather_positions(layout.position_ids, prompts, 0)  # [..., B, S]
    following = next_position(layout.position_ids, mask) + positions - lengths  # [..., B, S]
    # Spans move with the prompts.
    rank = mask.long().cumsum(-1).cpu() - 1  # [B, length of the batch]
    spans = {
        modality: tuple(
            tuple(replace(span, positions=rank[number, span.positions]) for span in own)
            for number, own in enumerate(by_sample)
        )
        for modality, by_sample in layout.spans.items()
    }
    moved = replace(
        layout,
        input_ids=ids,
        attention_mask=positions < totals,  # [B, S]
        position_ids=torch.where(positions < lengths, position_ids, following),  # [..., B, S]
        spans=spans,
        known=None,
        placed=None,
    )
    return moved, prompts, predictions
