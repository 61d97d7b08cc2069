"""The replay of an answer: prompts followed by their answers, run in one forward pass.

Rows are padded on the right, where causal attention never looks: no mask has to be made, and memory
stays linear in the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..compression.inputs import PromptLayout, encode_visuals, read_layout
from ..compression.rewriting import next_position, rewrite_prompt
from ..config import TokenCompressionConfig
from ..models.family import ModelFamily
from ..prompt import Modality, VisualSpan
from ..rewrite import gather_positions, kept_positions
from .attention_tap import MEMORY_LIMIT

Target = Literal["logit", "log_probability", "margin"]
"""The score of an answer token that is explained: its raw logit, its logarithmic probability, or
its logit less that of the strongest other token."""

_TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
_POSITIONS = TokenCompressionConfig()  # original position ids


def check_target(target: str) -> Target:
    """The target, if there is one of that name.

    Raises:
        ValueError: There is none.
    """
    for known in get_args(Target):
        if target == known:
            return known
    choices = ", ".join(map(repr, get_args(Target)))
    raise ValueError(f"target must be one of {choices}, but it is {target!r}.")


@dataclass(frozen=True)
class ReplayPass:
    """Inputs of one forward pass over B prompts with their answers, K columns each.

    Attributes:
        model: The model to run.
        inputs: Keyword arguments of its forward.
        answer_ids: int64 [B, T], the answers, -1 after their end.
        prediction_rows: int64 [B, T], the row that predicts each answer token, -1 after the end.
        attention_mask: bool [B, K], False on padding.
        visual_mask: bool [B, K], True on visual tokens.
        leaves: Tensors [n, D] of which gradients are taken: the visual features, or the word
            embeddings of a language model.
        leaf_places: For each leaf its prompt, and int64 [n] its columns, -1 for those not here.
        memory_limit: Bytes of scratch that working on an attention layer may take.
    """

    model: Any
    inputs: Mapping[str, Any]
    answer_ids: Tensor
    prediction_rows: Tensor
    attention_mask: Tensor
    visual_mask: Tensor
    leaves: tuple[Tensor, ...]
    leaf_places: tuple[tuple[int, Tensor], ...]
    memory_limit: int = MEMORY_LIMIT

    def logits(self) -> Tensor:
        """Logits of the rows that predict the answers: float32 [B, T, vocabulary]."""
        predicted = self.prediction_rows >= 0
        columns = self.prediction_rows[predicted].unique()  # sorted
        # An index on the CPU fits the logits of a model that is spread over devices.
        output = self.model(**self.inputs, logits_to_keep=columns.cpu(), use_cache=False)
        place = torch.searchsorted(columns, self.prediction_rows.clamp(min=0))  # [B, T]
        place = place.clamp(max=len(columns) - 1)
        rows = torch.arange(len(place), device=place.device)[:, None]
        picked: Tensor = output.logits.to(place.device)[rows, place].float()
        return picked

    def target_scores(self, targets: Tensor, target: Target) -> Tensor:
        """What is explained: float32 [G], summed over the prompts, which do not share anything.

        Args:
            targets: bool [G, B, T], the answer tokens whose scores are summed to each target.
            target: The score of a token, as `Target` says.
        """
        logits = self.logits()
        if target == "log_probability":
            logits = logits.log_softmax(-1)
        ids = self.answer_ids.clamp(min=0)[..., None]
        chosen = logits.gather(-1, ids).squeeze(-1)  # [B, T]
        if target == "margin":
            chosen = chosen - logits.scatter(-1, ids, float("-inf")).amax(-1)
        return (chosen * targets).sum(dim=(1, 2))

    def answer_log_probabilities(self) -> tuple[Tensor, Tensor]:
        """How likely each answer token is, and whether it is the likeliest.

        Returns:
            float32 [B, T], zero after an answer's end, and bool [B, T], True after its end.
        """
        with torch.no_grad():
            logits = self.logits()
        present = self.prediction_rows >= 0
        ids = self.answer_ids.clamp(min=0)
        chosen = logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
        return chosen.masked_fill(~present, 0.0), (logits.argmax(-1) == ids) | ~present


@dataclass(frozen=True)
class Replay:
    """Prompts with their answers, of which any visual tokens can be left out.

    Attributes:
        model: The model to run.
        family: Its family.
        inputs: Keyword arguments of the stock forward that carry no tokens of their own.
        layout: Prompts and answers, S columns, padded on the right.
        answer_ids: int64 [B, T], -1 after their end.
        prediction_rows: int64 [B, T], -1 after their end.
        visuals: For each prompt its images and videos, in the columns of the caller's sequence.
        memory_limit: Bytes of scratch that working on an attention layer may take.
    """

    model: Any
    family: ModelFamily
    inputs: Mapping[str, Any]
    layout: PromptLayout
    answer_ids: Tensor
    prediction_rows: Tensor
    visuals: tuple[tuple[VisualSpan, ...], ...]
    memory_limit: int = MEMORY_LIMIT

    @property
    def visual_columns(self) -> list[Tensor]:
        """For each prompt, int64 [N], the columns of its visual tokens in order."""
        return [torch.cat([span.positions for span in row]) for row in self.layout.visuals]

    @property
    def answers(self) -> list[Tensor]:
        """For each prompt, int64 [T], its answer."""
        return [answer[answer >= 0] for answer in self.answer_ids]

    def keep_best(self, scores: Sequence[Tensor], ratio: float) -> Tensor:
        """Columns of text, of answers and of the best-scored share of each prompt's visual tokens.

        Args:
            scores: For each prompt, float [N].
            ratio: Share of its visual tokens to keep, at least one token.

        Returns:
            bool [B, S].
        """
        keep = self.layout.attention_mask.clone()
        for row, (columns, own) in enumerate(zip(self.visual_columns, scores, strict=True)):
            order = own.argsort(descending=True, stable=True)
            keep[row, columns[order[max(1, round(ratio * len(columns))) :]]] = False
        return keep

    def select(self, rows: Sequence[int]) -> Replay:
        """The same prompts in another order, or some of them several times."""
        index = torch.tensor(rows, device=self.layout.input_ids.device)
        encoded, spans = {}, {}
        for modality, row_spans in self.layout.spans.items():
            own = _features_by_row(self.layout, modality)
            picked = [feature for row in rows for feature in own[row]]
            if not picked:
                continue
            spans[modality] = tuple(row_spans[row] for row in rows)
            encoded[modality] = replace(self.layout.encoded[modality], features=picked)
        layout = replace(
            self.layout,
            input_ids=self.layout.input_ids[index],
            attention_mask=self.layout.attention_mask[index],
            position_ids=self.layout.position_ids.index_select(-2, index),
            encoded=encoded,
            spans=spans,
        )
        tokens = {name: self.inputs[name][index] for name in _TOKEN_TYPES if name in self.inputs}
        return replace(
            self,
            inputs={**self.inputs, **tokens},
            layout=layout,
            answer_ids=self.answer_ids[index],
            prediction_rows=self.prediction_rows[index],
            visuals=tuple(self.visuals[row] for row in rows),
        )

    def forward_pass(self, keep: Tensor | None = None) -> ReplayPass:
        """Inputs of a forward pass with the kept columns only.

        Args:
            keep: bool [B, S]; all by default. Text and answers must be among them.
        """
        if keep is None:
            keep = self.layout.attention_mask
        leaves: list[Tensor] = []
        encoded = {}
        for modality, visuals in self.layout.encoded.items():
            features = [item.detach().clone().requires_grad_() for item in visuals.features]
            encoded[modality] = replace(visuals, features=features)
            leaves += features
        rewritten = rewrite_prompt(
            self.model,
            self.family,
            _POSITIONS,
            {
                **self.inputs,
                "input_ids": self.layout.input_ids,
                "attention_mask": self.layout.attention_mask.long(),
            },
            replace(self.layout, encoded=encoded),
            keep,
            "right",
        )
        # Column of every whole-prompt column in the pass, -1 where it was left out.
        place = (keep.long().cumsum(-1) - 1).masked_fill(~keep, -1)  # [B, S]
        index = kept_positions(keep, "right")  # [B, K]
        return ReplayPass(
            model=self.model,
            inputs=rewritten.inputs,
            answer_ids=self.answer_ids,
            prediction_rows=gather_positions(place, self.prediction_rows, -1),
            attention_mask=index >= 0,
            visual_mask=gather_positions(self.layout.visual_mask(), index, False),
            leaves=tuple(leaves),
            leaf_places=tuple(
                (row, place[row, span.positions])
                for row_spans in self.layout.spans.values()
                for row, spans in enumerate(row_spans)
                for span in spans
            ),
            memory_limit=self.memory_limit,
        )


def _features_by_row(layout: PromptLayout, modality: Modality) -> list[list[Tensor]]:
    features = iter(layout.encoded[modality].features)
    return [[next(features) for _ in spans] for spans in layout.spans[modality]]


def make_replay(
    model: Any,
    family: ModelFamily,
    inputs: Mapping[str, Any],
    answer_ids: Sequence[Tensor],
    memory_limit: int = MEMORY_LIMIT,
) -> Replay:
    """Put answers behind their prompts.

    Args:
        model: A model with a language model head.
        family: Its family.
        inputs: Keyword arguments of the stock forward, as the processor returned them.
        answer_ids: For each prompt, int64 [T].
        memory_limit: Bytes of scratch that working on an attention layer may take.

    Raises:
        TypeError, ValueError: An input is missing or does not fit the others, an answer has no
            tokens, or a prompt no visual ones.
    """
    with torch.inference_mode(False), torch.no_grad():
        # Tensors made in inference mode cannot take part in gradients.
        given = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        encoded = encode_visuals(model, family, given)
        layout = read_layout(model, family, given, encoded)
        check_answers(len(layout.input_ids), answer_ids)
        _check_visuals(layout)
        visuals = layout.visuals
        layout, rows, answers = _append_answers(layout, answer_ids, family.padding_id(model))
    index = kept_positions(_prompt_mask(given), "right")
    kept: dict[str, Any] = {}
    consumed = {*family.pixel_inputs.values(), *family.consumed_inputs, *_PROMPT_INPUTS}
    for name, value in given.items():
        if name in _TOKEN_TYPES:
            # The answer is text.
            tokens = gather_positions(value, index, 0)
            extra = layout.input_ids.shape[1] - tokens.shape[1]
            kept[name] = torch.nn.functional.pad(tokens, (0, extra))
        elif name not in consumed:
            kept[name] = value
    return Replay(model, family, kept, layout, answers, rows, visuals, memory_limit)


# What a replay makes itself, or what belongs to generation.
_PROMPT_INPUTS = (
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


def _prompt_mask(inputs: Mapping[str, Any]) -> Tensor:
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    assert isinstance(mask, Tensor)
    return mask.bool()


def check_answers(prompts: int, answer_ids: Sequence[Tensor]) -> None:
    """Raise unless there is one answer with tokens for each prompt.

    Raises:
        TypeError: An answer is no 1-D tensor of ids.
        ValueError: An answer is missing or empty.
    """
    if len(answer_ids) != prompts:
        raise ValueError(
            f"answer_ids must have one tensor per prompt, {prompts}, but has {len(answer_ids)}."
        )
    for row, answer in enumerate(answer_ids):
        if not isinstance(answer, Tensor) or answer.ndim != 1 or answer.is_floating_point():
            kind = answer.dtype if isinstance(answer, Tensor) else type(answer).__name__
            raise TypeError(
                f"The answer to prompt {row} must be a 1-D tensor of token ids, not {kind}"
                f"{f' {list(answer.shape)}' if isinstance(answer, Tensor) else ''}."
            )
        if len(answer) == 0:
            raise ValueError(
                f"The answer to prompt {row} has no tokens, so that there is nothing to explain: "
                "leave the prompt out, or pass other answer_ids."
            )


def _check_visuals(layout: PromptLayout) -> None:
    visuals = layout.visuals if layout.spans else ((),) * len(layout.input_ids)
    for row, spans in enumerate(visuals):
        if not spans:
            raise ValueError(
                f"Prompt {row} has no visual tokens to which relevance could go: pass prompts with "
                "an image or a video, and everything that the processor returned."
            )


def _append_answers(
    layout: PromptLayout, answer_ids: Sequence[Tensor], padding_id: int
) -> tuple[PromptLayout, Tensor, Tensor]:
    """Prompts with answers, padded on the right, the rows that predict them, and their ids."""
    device = layout.input_ids.device
    mask = layout.attention_mask
    lengths = mask.sum(1).tolist()
    longest_answer = max(map(len, answer_ids))
    # The last token of an answer predicts what comes after it, which is not asked.
    totals = [length + len(answer) - 1 for length, answer in zip(lengths, answer_ids, strict=True)]
    index = kept_positions(mask, "right")
    extra = max(totals) - index.shape[1]
    pad = torch.nn.functional.pad
    ids = pad(gather_positions(layout.input_ids, index, padding_id), (0, extra), value=padding_id)
    positions = pad(gather_positions(layout.position_ids, index, 0), (0, extra))
    following = next_position(layout.position_ids, mask)  # [A, B, 1] or [B, 1]
    rows = torch.full((len(lengths), longest_answer), -1, device=device)
    answers = torch.full_like(rows, -1)
    for row, (length, answer) in enumerate(zip(lengths, answer_ids, strict=True)):
        answer = answer.to(device)
        ids[row, length : totals[row]] = answer[:-1]
        steps = torch.arange(ids.shape[1] - length, device=device)
        # Padding goes on counting, so that no gap is taken for the border of a packed sequence.
        positions[..., row, length:] = following[..., row, :] + steps
        rows[row, : len(answer)] = torch.arange(length - 1, totals[row], device=device)
        answers[row, : len(answer)] = answer
    columns = torch.arange(ids.shape[1], device=device)
    rank = mask.long().cumsum(-1) - 1
    spans = {
        modality: tuple(
            tuple(_moved(span, rank[row]) for span in row_spans)
            for row, row_spans in enumerate(by_row)
        )
        for modality, by_row in layout.spans.items()
    }
    moved = replace(
        layout,
        input_ids=ids,
        attention_mask=columns < torch.tensor(totals, device=device)[:, None],
        position_ids=positions,
        spans=spans,
    )
    return moved, rows, answers


def _moved(span: VisualSpan, rank: Tensor) -> VisualSpan:
    return replace(span, positions=rank[span.positions])
