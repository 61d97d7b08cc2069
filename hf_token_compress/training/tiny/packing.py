r"""Many single-turn prompts about one picture in one sequence.

Every question sees the picture and itself, nothing of the other questions, at the very positions
it would have in a prompt of its own: the loss of a packed sequence is that of as many single
prompts, for the price of encoding the picture once.

Sequence: prefix (`<|im_start|>user\n<|vision_start|>`), visual tokens, `<|vision_end|>`, then one
segment per question (`question<|im_end|>\n<|im_start|>assistant\nanswer<|im_end|>`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.scenes import Question

IGNORED = -100


@dataclass(frozen=True)
class PackedBatch:
    """Pictures of one shape, with their questions, ready for the language model.

    Shapes: B pictures, V kept visual tokens, P prefix tokens, T text tokens after the picture
    (padded), S = P + V + T.

    Attributes:
        prefix_ids: (P,) int64.
        text_ids: (B, T) int64.
        labels: (B, T) int64, the next token where an answer is predicted, else -100.
        early_labels: (B, T) int64, the answer's first token at the last two words of the question
            and in the turn that follows, else -100.
        position_ids: (3, B, S) int64, temporal, height and width.
        mask: (B, 1, S, S) bool, True where attention is allowed.
        question_rows: (B, S) bool, True at the words of the questions.
        kept: (B, V) int64, which visual tokens are kept, ascending.
    """

    prefix_ids: torch.Tensor
    text_ids: torch.Tensor
    labels: torch.Tensor
    early_labels: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor
    question_rows: torch.Tensor
    kept: torch.Tensor

    @cached_property
    def visual_slice(self) -> slice:
        """Where the visual tokens stand in the sequence."""
        start = self.prefix_ids.numel()
        return slice(start, start + self.kept.shape[1])


@dataclass
class _Text:
    """The text after one picture; segment 0 is seen by all others, labels are next tokens."""

    ids: list[int]
    labels: list[int]
    early_labels: list[int]
    positions: list[int]
    segments: list[int]
    is_question: list[bool]


class Packer:
    """Turns questions into packed batches.

    Args:
        tokenizer: Tokenizer of the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self._prefix = self._encode("<|im_start|>user\n<|vision_start|>")
        self._vision_end = self._encode("<|vision_end|>")
        self._turn = self._encode("<|im_end|>\n<|im_start|>assistant\n")
        self._end = self._encode("<|im_end|>")

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._cache[text]

    def pack(
        self,
        questions: Sequence[Sequence[Question]],
        grid: tuple[int, int],
        kept: torch.Tensor,
    ) -> PackedBatch:
        """Pack the questions of each picture.

        Args:
            questions: Of every picture of the batch.
            grid: Rows and columns of visual tokens, before any is dropped.
            kept: (B, V) int64, ascending indices of the visual tokens to keep.
        """
        rows, columns = grid
        start = len(self._prefix) + max(rows, columns)
        encoded = [self._encode_picture(asked, start) for asked in questions]
        length = max(len(one.ids) for one in encoded)
        batch = len(encoded)
        text_ids = torch.full((batch, length), self._end[0])
        labels = torch.full((batch, length), IGNORED)
        early = torch.full((batch, length), IGNORED)
        positions = torch.zeros(batch, length, dtype=torch.long)
        segments = torch.full((batch, length), -1)
        shared = len(self._prefix) + kept.shape[1]
        asking = torch.zeros(batch, shared + length, dtype=torch.bool)
        for index, one in enumerate(encoded):
            count = len(one.ids)
            text_ids[index, :count] = torch.tensor(one.ids)
            labels[index, :count] = torch.tensor(one.labels)
            early[index, :count] = torch.tensor(one.early_labels)
            positions[index, :count] = torch.tensor(one.positions)
            segments[index, :count] = torch.tensor(one.segments)
            asking[index, shared : shared + count] = torch.tensor(one.is_question)
        return PackedBatch(
            prefix_ids=torch.tensor(self._prefix),
            text_ids=text_ids,
            labels=labels,
            early_labels=early,
            position_ids=self._positions(kept, columns, positions),
            mask=self._mask(kept, segments),
            question_rows=asking,
            kept=kept,
        )

    def _encode_picture(self, questions: Sequence[Question], start: int) -> _Text:
        text = _Text(list(self._vision_end), [IGNORED], [IGNORED], [start], [0], [False])
        for number, question in enumerate(questions, start=1):
            words, answer = self._encode(question.text), self._encode(question.answer) + self._end
            prompt = words + self._turn
            length = len(prompt) + len(answer)
            text.ids += prompt + answer
            text.labels += [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
            known = min(2, len(words)) + len(self._turn) - 1
            text.early_labels += [IGNORED] * (len(prompt) - 1 - known) + [answer[0]] * known
            text.early_labels += [IGNORED] * (1 + len(answer))
            text.positions += range(start + 1, start + 1 + length)
            text.segments += [number] * length
            text.is_question += [True] * len(words) + [False] * (length - len(words))
        return text

    def _positions(self, kept: torch.Tensor, columns: int, text: torch.Tensor) -> torch.Tensor:
        batch, prefix = len(text), len(self._prefix)
        before = torch.arange(prefix).expand(3, batch, prefix)
        visual = torch.stack([torch.zeros_like(kept), kept // columns, kept % columns]) + prefix
        return torch.cat([before, visual, text.expand(3, *text.shape)], dim=2)

    def _mask(self, kept: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        batch, shared = len(segments), len(self._prefix) + kept.shape[1]
        group = torch.cat([torch.zeros(batch, shared, dtype=segments.dtype), segments], dim=1)
        size = group.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool).tril()
        same = group[:, :, None] == group[:, None, :]
        return ((same | (group == 0)[:, None, :]) & causal)[:, None]


def drop_visual_tokens(
    batch: int, count: int, generator: torch.Generator, share: float = 0.6, floor: float = 0.1
) -> torch.Tensor:
    """Choose at random which visual tokens of each picture a batch keeps.

    Nothing about pictures, questions or answers enters the choice.

    Args:
        batch: Pictures.
        count: Visual tokens of each.
        generator: Source of the choice.
        share: Share of batches in which tokens are dropped.
        floor: Least share of tokens kept; the share is uniform between it and 1.

    Returns:
        (batch, kept) int64, ascending.
    """
    keep = count
    if torch.rand((), generator=generator) < share:
        ratio = floor + (1 - floor) * torch.rand((), generator=generator).item()
        keep = max(1, round(count * ratio))
    order = torch.rand(batch, count, generator=generator).argsort(dim=1)
    return order[:, :keep].sort(dim=1).values
