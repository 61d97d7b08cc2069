r"""Pack many single-turn prompts about one image into one sequence.

Every question sees the image and itself, but no other question, at the positions that it would have
in its own prompt. The loss of a packed sequence is that of the separate prompts, but the image is
encoded only once.

Sequence: prefix (for Qwen2-VL `<|im_start|>user\n<|vision_start|>`), visual tokens, what closes
them (`<|vision_end|>`), then one segment per question
(`question<|im_end|>\n<|im_start|>assistant\nanswer<|im_end|>`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import Question

IGNORED = -100


@dataclass(frozen=True)
class PackedBatch:
    """Images of one shape and their questions, as inputs of the language model.

    Shapes: B images or videos, V kept visual tokens, P prefix tokens, T text tokens after the image
    (padded), S = P + V + T.

    Attributes:
        prefix_ids: int64 [P].
        text_ids: int64 [B, T].
        labels: int64 [B, T], the next token where an answer is predicted, else -100.
        early_labels: int64 [B, T], the answer's first token at the last two words of the question
            and in the turn that follows, else -100.
        position_ids: int64 [axes, B, S], or [B, S] for a language model with one position axis.
        segments: int64 [B, S], 0 for tokens that all may see, the number of the question at its
            tokens, -1 for padding.
        question_mask: bool [B, S], True at the words of the questions.
        kept: int64 [B, V], indices of the kept visual tokens, ascending.
    """

    prefix_ids: torch.Tensor
    text_ids: torch.Tensor
    labels: torch.Tensor
    early_labels: torch.Tensor
    position_ids: torch.Tensor
    segments: torch.Tensor
    question_mask: torch.Tensor
    kept: torch.Tensor

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on a device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)}
        return PackedBatch(**tensors)

    @cached_property
    def mask(self) -> torch.Tensor:
        """The attention mask, bool [B, 1, S, S], True where attention is allowed."""
        group, size = self.segments, self.segments.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool, device=group.device).tril()
        same = group[:, :, None] == group[:, None, :]
        return ((same | (group == 0)[:, None, :]) & causal)[:, None]

    @cached_property
    def visual_slice(self) -> slice:
        """Positions of the visual tokens in the sequence."""
        start = self.prefix_ids.numel()
        return slice(start, start + self.kept.shape[1])


@dataclass
class _Text:
    """The text after one image; all segments see segment 0, and labels are next tokens."""

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
        opening: Text before the visual tokens in the chat template.
        closing: Text after them.
        turn: Text between question and answer.
        before_answer: Text at the start of every answer, such as a space.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        opening: str = "<|im_start|>user\n<|vision_start|>",
        closing: str = "<|vision_end|>",
        turn: str = "<|im_end|>\n<|im_start|>assistant\n",
        before_answer: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self._prefix = self._encode(opening)
        self._closing = self._encode(closing)
        self._turn = self._encode(turn)
        self._before_answer = before_answer
        self._end = self._encode("<|im_end|>")

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._cache[text]

    def pack(
        self,
        questions: Sequence[Sequence[Question]],
        positions: torch.Tensor,
        kept: torch.Tensor,
    ) -> PackedBatch:
        """Pack the questions of each image.

        Args:
            questions: Questions about each image.
            positions: int64 [axes, N], positions of the visual tokens before any is dropped, from
                `grid_positions` or `sequence_positions`.
            kept: int64 [B, V], ascending indices of the visual tokens to keep.
        """
        # Text continues after the largest row or column; the time axis of a video does not count.
        start = len(self._prefix) + int(positions[-2:].max()) + 1
        encoded = [self._encode_image(asked, start) for asked in questions]
        length = max(len(one.ids) for one in encoded)
        batch = len(encoded)
        text_ids = torch.full((batch, length), self._end[0])
        labels = torch.full((batch, length), IGNORED)
        early = torch.full((batch, length), IGNORED)
        text_positions = torch.zeros(batch, length, dtype=torch.long)
        segments = torch.full((batch, length), -1)
        shared = len(self._prefix) + kept.shape[1]
        asking = torch.zeros(batch, shared + length, dtype=torch.bool)
        for index, one in enumerate(encoded):
            count = len(one.ids)
            text_ids[index, :count] = torch.tensor(one.ids)
            labels[index, :count] = torch.tensor(one.labels)
            early[index, :count] = torch.tensor(one.early_labels)
            text_positions[index, :count] = torch.tensor(one.positions)
            segments[index, :count] = torch.tensor(one.segments)
            asking[index, shared : shared + count] = torch.tensor(one.is_question)
        return PackedBatch(
            prefix_ids=torch.tensor(self._prefix),
            text_ids=text_ids,
            labels=labels,
            early_labels=early,
            position_ids=self._positions(positions, kept, text_positions),
            segments=torch.cat([torch.zeros(batch, shared, dtype=torch.long), segments], dim=1),
            question_mask=asking,
            kept=kept,
        )

    def _encode_image(self, questions: Sequence[Question], start: int) -> _Text:
        count = len(self._closing)
        text = _Text(
            ids=list(self._closing),
            labels=[IGNORED] * count,
            early_labels=[IGNORED] * count,
            positions=list(range(start, start + count)),
            segments=[0] * count,
            is_question=[False] * count,
        )
        for number, question in enumerate(questions, start=1):
            answered = self._before_answer + question.answer
            words, answer = self._encode(question.text), self._encode(answered) + self._end
            prompt = words + self._turn
            length = len(prompt) + len(answer)
            text.ids += prompt + answer
            text.labels += [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
            known = min(2, len(words)) + len(self._turn) - 1
            text.early_labels += [IGNORED] * (len(prompt) - 1 - known) + [answer[0]] * known
            text.early_labels += [IGNORED] * (1 + len(answer))
            text.positions += range(start + count, start + count + length)
            text.segments += [number] * length
            text.is_question += [True] * len(words) + [False] * (length - len(words))
        return text

    def _positions(
        self, positions: torch.Tensor, kept: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        axes, batch, prefix = len(positions), len(text), len(self._prefix)
        before = torch.arange(prefix).expand(axes, batch, prefix)
        visual = positions[:, kept] + prefix  # [axes, B, V]
        together = torch.cat([before, visual, text.expand(axes, *text.shape)], dim=2)
        return together[0] if axes == 1 else together


def grid_positions(grid: tuple[int, int], frames: int = 1) -> torch.Tensor:
    """Positions of the visual tokens of an image or a video in time, height and width.

    Args:
        grid: Rows and columns of visual tokens.
        frames: Frames of visual tokens.

    Returns:
        int64 [3, frames * rows * columns].
    """
    rows, columns = grid
    return torch.cartesian_prod(
        torch.arange(frames), torch.arange(rows), torch.arange(columns)
    ).T.contiguous()


def sequence_positions(count: int) -> torch.Tensor:
    """Positions of visual tokens in text order, int64 [1, count]."""
    return torch.arange(count)[None]


def drop_visual_tokens(
    batch: int,
    count: int,
    generator: torch.Generator,
    share: float = 0.6,
    floor: float = 0.1,
    text: Sequence[int] = (),
) -> torch.Tensor:
    """Choose at random which visual tokens of each image a batch keeps.

    The choice does not depend on images, questions or answers.

    Args:
        batch: Number of images.
        count: Tokens per image, from the first visual token to the last.
        generator: Generator for the choice.
        share: Share of batches in which tokens are dropped.
        floor: Minimum share of visual tokens kept; the share is uniform between it and 1.
        text: Indices of tokens that are text and always kept.

    Returns:
        int64 [batch, kept], ascending.
    """
    visual = count - len(text)
    keep = visual
    if torch.rand((), generator=generator) < share:
        ratio = floor + (1 - floor) * torch.rand((), generator=generator).item()
        keep = max(1, round(visual * ratio))
    chance = torch.rand(batch, count, generator=generator)
    chance[:, list(text)] = -1.0
    return chance.argsort(dim=1)[:, : len(text) + keep].sort(dim=1).values
