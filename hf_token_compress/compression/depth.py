"""Score at a deeper layer: the first layers of the stock model on the whole prompt, then stop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..models.family import ModelFamily
from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer


class _ReachedError(Exception):
    """Ends a forward at the layer whose input was wanted."""


def at_depth(
    model: Any, family: ModelFamily, prompt: MultimodalPrompt, depth: int
) -> tuple[MultimodalPrompt, ScoringLayer]:
    """The prompt as decoder layer `depth` sees it, and that layer.

    Args:
        model: The loaded model.
        family: Its family.
        prompt: The prompt before layer 0.
        depth: Decoder layers that run first, at least 0 and fewer than the model has.

    Raises:
        ValueError: The model has too few layers, or its family cannot be scored there.
    """
    check_depth(model, family, depth)
    if depth == 0:
        return prompt, family.scoring_layer(model)
    decoder = family.decoder(model)
    hidden = _input_of(decoder.layers[depth], decoder, prompt)
    return replace(prompt, inputs_embeds=hidden), family.scoring_layer(model, depth)


def check_depth(model: Any, family: ModelFamily, depth: int) -> None:
    """Raise unless the model can be scored at that depth; arguments as for `at_depth`.

    Raises:
        ValueError: The model has too few layers, or its family cannot be scored there.
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
    """Hidden states [B, S, D] that come into a layer of the stock decoder."""
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
