"""The interface of a rule, and of rules that propagate relevance through attention layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, get_args

import torch
from torch import Tensor

from ...checks import check_choice
from ..attention_tap import AttentionLayer, AttentionTap, tapped_twin
from ..explained_twin import checkpoint_layers
from ..replay import Replay, ReplayPass, Target


class Rule(ABC):
    """One way to score how much an answer depends on each visual token.

    A rule holds its options only. Subclass it, `PassRule` or `PropagationRule`, implement the
    abstract method, and register it under a name:

    ```python
    @register_rule("earlier_is_better")
    class EarlierIsBetter(Rule):
        def explain(self, replay, targets, keep):
            positions = torch.arange(keep.shape[1], dtype=torch.float32)
            return -positions.expand(len(targets), *keep.shape)
    ```
    """

    @abstractmethod
    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """Score every token for every target.

        Gradients are enabled, parameters are frozen and the model is in evaluation mode.

        Args:
            replay: B prompts with their answers, S tokens each.
            targets: bool [G, B, T], the answer tokens whose scores are summed in each target.
            keep: bool [B, S], the tokens that have not been removed.

        Returns:
            float32 [G, B, S]; only visual tokens that have not been removed are read.
        """


class PassRule(Rule):
    """A rule that needs a single forward pass.

    Args:
        target: The score of an answer token to explain: its "logit", its "log_probability", or its
            "margin" over the strongest other token.

    Raises:
        ValueError: `target` is none of these.
    """

    def __init__(self, target: Target = "logit") -> None:
        check_choice("target", target, get_args(Target))
        self.target = target

    @abstractmethod
    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        """Score every token of a pass over K tokens for every target, float32 [G, B, K].

        Arguments as for `explain`.
        """

    def explain(self, replay: Replay, targets: Tensor, keep: Tensor) -> Tensor:
        """Score the tokens of one forward pass without the removed tokens."""
        found = self.explain_pass(replay.forward_pass(keep), targets)  # [G, B, K]
        place = (keep.long().cumsum(-1) - 1).clamp(min=0)  # [B, S]
        place = place.expand(len(targets), *place.shape)  # [G, B, S]
        return found.gather(-1, place).masked_fill(~keep, 0.0)  # [G, B, S]


class PropagationRule(PassRule):
    """A rule that propagates relevance through the attention layers, from the top layer down.

    All targets share one forward pass, and each has its own backward pass.

    Args:
        target: "logit", "log_probability" or "margin", as for `PassRule`.

    Attributes:
        uses_gradients: Whether the rule reads the gradients of the attention outputs.
    """

    uses_gradients: ClassVar[bool] = True

    def start(self, predicting: Tensor, replay: ReplayPass) -> Tensor:
        """Weights of the queries that relevance starts from, float32 [G, B, K].

        Args:
            predicting: float32 [G, B, K], 1 at the positions that predict the tokens of a target,
                0 elsewhere; the default weights.
            replay: B prompts with their answers, K tokens each.
        """
        return predicting

    def initial_relevance(self, start: Tensor) -> Tensor:
        """Relevance above the top layer, float32 [G, B, K]; by default `start`."""
        return start

    @abstractmethod
    def propagate(
        self, relevance: Tensor, layer: AttentionLayer, gradient: Tensor | None, start: Tensor
    ) -> Tensor:
        """Relevance below a layer from that above it.

        Most rules return `layer.propagate(relevance, gradient)` with some options.

        Args:
            relevance: float32 [G, B, K], above the layer.
            layer: The layer.
            gradient: float [G, B, heads, K, value_dim], of the targets with respect to the layer's
                output; None unless `uses_gradients`.
            start: float32 [G, B, K], what `start` returned.

        Returns:
            float32 [G, B, K].
        """

    def explain_pass(self, replay: ReplayPass, targets: Tensor) -> Tensor:
        """Propagate relevance from the top layer down to the input."""
        shape = len(targets), *replay.visual_mask.shape
        predicting = torch.zeros(shape, dtype=torch.float32, device=targets.device)
        positions = replay.prediction_positions.clamp(min=0).expand(targets.shape)  # [G, B, T]
        predicting.scatter_add_(-1, positions, targets.float())  # [G, B, K]
        start = self.start(predicting, replay)
        tap = AttentionTap(keep_layers=not self.uses_gradients, memory_limit=replay.memory_limit)
        tapped = tapped_twin(replay.model, tap)
        if replay.checkpointing:
            checkpoint_layers(tapped.get_decoder())
        with torch.set_grad_enabled(self.uses_gradients):
            scores = replace(replay, model=tapped).target_scores(targets, self.target)  # [G]
            tap.check(replay.model)
            if not self.uses_gradients:
                # Propagate all targets together, after the forward pass.
                propagation = _Propagation(self, start)
                while tap.forward_layers:
                    propagation.visit(tap.forward_layers.pop(), None)
                return propagation.relevance.to(start.device)
            # Propagate each target in its own backward pass.
            found = []
            for number in range(len(targets)):
                propagation = _Propagation(self, start[number : number + 1])  # of [1, B, K]
                tap.visit = propagation.visit
                last = number == len(targets) - 1
                torch.autograd.grad(scores[number], replay.leaves, retain_graph=not last)
                found.append(propagation.relevance.to(start.device))
        return torch.cat(found)  # [G, B, K]


class _Propagation:
    """Relevance on its way from the top layer down."""

    def __init__(self, rule: PropagationRule, start: Tensor) -> None:
        self.rule = rule
        self.start = start
        self.relevance = rule.initial_relevance(start)

    def visit(self, layer: AttentionLayer, gradient: Tensor | None) -> None:
        """Propagate through one layer, on its device."""
        device = layer.query.device
        self.relevance = self.rule.propagate(
            self.relevance.to(device),
            layer,
            None if gradient is None else gradient[None],  # [1, B, heads, K, value_dim]
            self.start.to(device),
        )
