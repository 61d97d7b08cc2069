"""Attention masks for a few queries: [Q, S] of a mask that is never made whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, NoneType

import torch
from torch import Tensor

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(sample, head, query position, key position) → bool, of one broadcast shape."""

_FAR = (2**10, 2**16, 2**24)


@dataclass(frozen=True)
class MaskRule:
    """How Transformers made a mask.

    Attributes:
        made: The mask that the decoder was given, which identifies the rule.
        function: What it says, without padding.
    """

    made: Tensor | None
    function: MaskFunction

    def visible(self, sample: Tensor, position: Tensor, length: int) -> Tensor:
        """Keys that queries see, bool [Q, S].

        Args:
            sample: int64 [Q].
            position: int64 [Q].
            length: S.
        """
        keys = torch.arange(length, device=position.device)  # [S]
        head = torch.zeros((), dtype=torch.long, device=position.device)
        visible = self.function(sample[:, None], head, position[:, None], keys[None])
        return visible.expand(len(position), length)


@dataclass(frozen=True)
class SeenMask:
    """The mask of one attention layer.

    Attributes:
        mask: As the layer gets it.
        rules: The masks that Transformers made in this forward.
        causal: Whether queries see keys up to their own position where there is no mask.
        sliding_window: Window that the layer names, in keys.
    """

    mask: Tensor | None
    rules: tuple[MaskRule, ...]
    causal: bool
    sliding_window: int | None

    @property
    def is_changed(self) -> bool:
        """Whether the layer got another mask than those that Transformers made."""
        made = [rule.made for rule in self.rules]
        return bool(made) and self.mask is not None and all(own is not self.mask for own in made)

    def is_causal(self, sliding_window: int | None) -> bool:
        """Whether the mask is causal order and a window, at any length."""
        own = [rule for rule in self.rules if rule.made is self.mask]
        if not own:
            return self.mask is None and self.causal
        if any(_holds_tensors(rule.function) for rule in own):
            return False
        edges = [0, 1, *_FAR]
        edges += [position - window for position in _FAR for window in (sliding_window or 0, 1)]
        position = torch.tensor(sorted(set(edges)))  # [P]
        offset = position[:, None] - position  # [P, P]
        expected = offset >= 0
        if sliding_window is not None:
            expected &= offset < sliding_window
        head = torch.zeros((), dtype=torch.long)
        return all(
            torch.equal(rule.function(head, head, position[:, None], position[None]), expected)
            for rule in own
        )

    def visible(self, sample: Tensor, position: Tensor, length: int) -> Tensor:
        """Keys that queries see, bool [Q, S], padding aside.

        Args:
            sample: int64 [Q].
            position: int64 [Q].
            length: S.

        Raises:
            ValueError: The mask adds numbers to the logits, or has a shape that cannot be read.
        """
        own = [rule for rule in self.rules if rule.made is self.mask]
        if own:
            rows = [rule.visible(sample, position, length) for rule in own]  # [Q, S] each
            visible = torch.stack(rows).any(dim=0)
            # Without padding, masks of several layer types are all None; the window tells them
            # apart.
            return visible & self._window(position, length) if len(own) > 1 else visible
        if self.mask is None:
            return self._window(position, length)
        return _given_rows(self.mask, sample, position)

    def _window(self, position: Tensor, length: int) -> Tensor:
        offset = position[:, None] - torch.arange(length, device=position.device)  # [Q, S]
        visible = offset >= 0 if self.causal else torch.ones_like(offset, dtype=torch.bool)
        return visible if self.sliding_window is None else visible & (offset < self.sliding_window)


def _given_rows(mask: Tensor, sample: Tensor, position: Tensor) -> Tensor:
    """Rows of a mask that the model made itself, [B or 1, 1, S, S] → bool [Q, S]."""
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(
            f"The decoder's attention mask has the shape {list(mask.shape)}, which cannot be read: "
            "choose a scorer that needs no attention, such as 'uniform'."
        )
    rows = mask[sample if mask.shape[0] > 1 else 0, 0, position]  # [Q, S]
    if rows.dtype == torch.bool:
        return rows
    visible = rows > torch.finfo(rows.dtype).min / 2
    if rows.masked_fill(~visible, 0).any():
        raise ValueError(
            "The decoder's attention mask adds numbers to the attention logits, which scoring does "
            "not do: choose a scorer that needs no attention, such as 'uniform'."
        )
    return visible


def _holds_tensors(value: object) -> bool:
    """Whether a mask function reads tensors, such as the types of tokens."""
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensors, value))
    if isinstance(value, FunctionType):
        return any(_holds_tensors(cell.cell_contents) for cell in value.__closure__ or ())
    return not isinstance(value, (int, float, str, NoneType))
