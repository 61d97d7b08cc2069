"""The interface of a rule, and of those that propagate relevance through attention layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...kernels.relevance_step import relevance_step
from ..attention_tap import AttentionLayer, AttentionTap, tapped_attention
from ..replay import Replay, ReplayPass, Target, check_target


class Rule(ABC):
    """One way to tell how much an answer rests on each visual token.

    A rule holds its options only. Subclass it, `PassRule` or `PropagationRule`, implement what is
    abstract, and register it under a name:

    ```python
    @register_rule("earlier_is_better")
    class EarlierIsBetter(Rule):
        def explain(self, replay, targets, keep):
            columns = torch.arange(keep.shape[1], dtype=torch.float32)
            return -columns.expand(len(targets), *keep.shape)
    ```
    """

    @abstractmethod
    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """Relevance of every column for every target.

        It is called with gradients switched on, parameters frozen and the model in evaluation mode.

        Args:
            replay: B prompts with their answers, S columns.
            targets: bool [G, B, T], the answer tokens whose scores are summed to each target.
            keep: bool [B, S], the columns that are still there.

        Returns:
            float32 [G, B, S]; only visual columns that are still there are read.
        """


class PassRule(Rule):
    """A rule that is worked out from one forward pass."""

    @abstractmethod
    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        """Relevance of every column of a pass for every target.

        Args:
            replay: The pass, B prompts with their answers, K columns.
            targets: bool [G, B, T].

        Returns:
            float32 [G, B, K].
        """

    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """See `Rule.explain`."""
        found = self.explain_pass(replay.forward_pass(keep), targets)  # [G, B, K]
        place = (keep.long().cumsum(-1) - 1).clamp(min=0)  # [B, S]
        return found.gather(-1, place.expand(len(targets), *place.shape)).masked_fill(~keep, 0.0)


class PropagationRule(PassRule):
    """A rule that is worked out layer by layer, from the top layer down.

    Every target has a backward pass of its own; all share one forward pass.

    Args:
        target: The score of an answer token that is explained: its raw "logit", its
            "log_probability", or its "margin" over the strongest other token.

    Raises:
        ValueError: There is no such target.

    Attributes:
        uses_gradients: Whether it reads the gradients of the attention outputs.
    """

    uses_gradients: ClassVar[bool] = True

    def __init__(self, target: Target = "logit") -> None:
        self.target = check_target(target)

    def start(self, rows: Tensor, replay: ReplayPass) -> Tensor:
        """The rows from which relevance starts, float32 [G, B, K]; by default `rows`.

        Args:
            rows: float32 [G, B, K], 1 on the rows that predict a target's tokens, else 0.
            replay: B prompts with their answers.
        """
        return rows

    def above_the_top(self, start: Tensor) -> Tensor:
        """Relevance above the top layer, float32 [G, B, K]; by default what `start` gave."""
        return start

    @abstractmethod
    def through(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """Relevance below a layer from that above it, float32 [G, B, K].

        Args:
            relevance: float32 [G, B, K], above the layer.
            layer: The layer.
            gradient: float [G, B, heads, K, value_dim], of the targets with respect to its output;
                None unless the rule uses gradients.
            start: What `start` gave.
        """

    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        """See `PassRule.explain_pass`."""
        start = self.start(_target_rows(replay, targets), replay)
        if self.uses_gradients:
            return self._from_backward(replay, targets, start)
        tap = AttentionTap(keep_layers=True, memory_limit=replay.memory_limit)
        with tapped_attention(replay.model.get_decoder(), tap), torch.no_grad():
            replay.logits()
        tap.check(replay.model)
        walk = _Walk(self, start)
        for layer in reversed(tap.forward_layers):
            walk.visit(layer, None)
        return walk.relevance.to(start.device)

    def _from_backward(self, replay: ReplayPass, targets: Tensor, start: Tensor) -> Tensor:
        found = []
        tap = AttentionTap(memory_limit=replay.memory_limit)
        with tapped_attention(replay.model.get_decoder(), tap):
            scores = replay.target_scores(targets, self.target)
            tap.check(replay.model)
            for number in range(len(targets)):
                walk = _Walk(self, start[number : number + 1])
                tap.visit = walk.visit
                last = number == len(targets) - 1
                torch.autograd.grad(scores[number], replay.leaves, retain_graph=not last)
                found.append(walk.relevance.to(start.device))
        return torch.cat(found)


class _Walk:
    """The relevance of one target on its way down."""

    def __init__(self, rule: PropagationRule, start: Tensor) -> None:
        self.rule = rule
        self.start = start
        self.relevance = rule.above_the_top(start)

    def visit(self, layer: AttentionLayer, gradient: Tensor | None) -> None:
        """Go through one layer, on the device where it lies."""
        device = layer.query.device
        self.relevance = self.rule.through(
            self.relevance.to(device),
            layer,
            None if gradient is None else gradient[None],
            self.start.to(device),
        )


def propagate(
    relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, **options: Any
) -> Tensor:
    """`relevance_step` for a layer: float32 [G, B, K] → [G, B, K]."""
    return relevance_step(
        relevance,
        layer.query,
        layer.key,
        layer.value,
        gradient,
        mask=layer.mask,
        causal=layer.causal,
        scaling=layer.scaling,
        chunk_size=layer.chunk_size,
        **options,
    )


def _target_rows(replay: ReplayPass, targets: Tensor) -> Tensor:
    rows = torch.zeros(len(targets), *replay.visual_mask.shape, device=targets.device)
    places = replay.prediction_rows.clamp(min=0).expand(targets.shape)
    return rows.scatter_add_(-1, places, targets.float())
