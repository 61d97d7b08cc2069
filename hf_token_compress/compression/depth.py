"""Score at a deeper layer: run the stock decoder on the whole prompt up to that layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..models.family import ModelFamily
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer


class _ReachedError(Exception):
    """Stops a forward at the scoring layer."""


def at_depth(
    model: Any, family: ModelFamily, prompt: MultimodalPrompt, depth: int
) -> tuple[MultimodalPrompt, ScoringLayer]:
    """The prompt as decoder layer `depth` sees it, and that layer.

    Args:
        model: The loaded model.
        family: Its family.
        prompt: The prompt before layer 0.
        depth: Number of decoder layers that run before, less than the model has.

    Raises:
        ValueError: The model has no such layer.
    """
    check_depth(model, family, depth)
    if depth == 0:
        return prompt, family.scoring_layer(model)
    decoder = family.decoder(model)
    hidden = _input_of(decoder.layers[depth], decoder, prompt)
    return replace(prompt, inputs_embeds=hidden), family.scoring_layer(model, depth)


def check_depth(model: Any, family: ModelFamily, depth: int) -> None:
    """Check that the model has a decoder layer `depth`; arguments as for `at_depth`.

    Raises:
        ValueError: The model has no such layer.
    """
    if depth == 0:
        return
    layers = len(family.decoder(model).layers)
    if not 0 < depth < layers:
        raise ValueError(
            f"scoring_depth must be from 0 to {layers - 1} for this model, but it is {depth}."
        )


@torch.no_grad()
def _input_of(layer: nn.Module, decoder: Any, prompt: MultimodalPrompt) -> Tensor:
    """Hidden states [B, S, D] at the input of a layer of the stock decoder."""
    found: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _ReachedError

    handle = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        decoder(
            inputs_embeds=prompt.inputs_embeds,
            position_ids=prompt.position_ids,
            attention_mask=prompt.attention_mask.long(),
            use_cache=False,
        )
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return found[0]
