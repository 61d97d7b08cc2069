"""What a scorer sees of the inputs of a stock forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import InstructionScope
from ..models.family import ModelFamily, is_token
from ..models.registry import model_family
from ..prompt import MultimodalPrompt, find_instruction_tokens
from ..scoring_layer import ScoringLayer
from .inputs import PromptLayout, check_shape, read_layout


def read_prompt(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    instruction: InstructionScope = "last_turn",
    scoring_depth: int = 0,
) -> tuple[MultimodalPrompt, ScoringLayer]:
    """The prompt and the scoring layer that a scorer of this model would get for these inputs.

    Call it under `torch.no_grad()` unless gradients should reach the vision part.

    Args:
        model: A Transformers model of a supported family, compressed or not.
        inputs: What its processor returned, with images or videos.
        instruction: Which text is the instruction, as in `TokenCompressionConfig`.
        scoring_depth: Number of decoder layers before the scoring layer.

    Raises:
        TypeError, ValueError: As in a compressed call.
    """
    family = model_family(getattr(model, "stock_class", type(model)))
    layout = read_layout(model, family, inputs)
    return scoring_prompt(model, family, layout, instruction, scoring_depth)


def scoring_prompt(
    model: Any,
    family: ModelFamily,
    layout: PromptLayout,
    instruction: InstructionScope,
    scoring_depth: int,
    *,
    labels: Tensor | None = None,
    instruction_mask: Tensor | None = None,
) -> tuple[MultimodalPrompt, ScoringLayer]:
    """The prompt and the scoring layer for a layout that was read.

    Args:
        model: The loaded model.
        family: Its family.
        layout: The batch of B prompts of S tokens.
        instruction: Which text is the instruction.
        scoring_depth: Number of decoder layers before the scoring layer.
        labels: int64 [B, S], -100 where nothing is learned; the instruction comes before the rest.
        instruction_mask: bool or 0/1 [B, S], overrides which tokens are the instruction.

    Raises:
        TypeError, ValueError: `instruction_mask` does not fit, or the model has no such layer.
    """
    if instruction_mask is None:
        instruction_mask = _instruction_tokens(model, family, layout, instruction, labels)
    check_shape("instruction_mask", instruction_mask, layout.input_ids)
    mask = instruction_mask.to(layout.attention_mask)
    prompt = layout.prompt(family.embed(model, layout.input_ids), mask)
    check_depth(model, family, scoring_depth)
    if scoring_depth > 0:
        hidden = _run_layers(family.decoder(model), prompt, scoring_depth)
        prompt = replace(prompt, inputs_embeds=hidden)
    return prompt, family.scoring_layer(model, scoring_depth)


def _instruction_tokens(
    model: Any,
    family: ModelFamily,
    layout: PromptLayout,
    instruction: InstructionScope,
    labels: Tensor | None,
) -> Tensor:
    """Mark the instruction tokens, bool [B, S].

    Where there are `labels` (int64 [B, S], -100 where nothing is learned), only tokens before the
    answer can be instruction.
    """
    question = layout.attention_mask
    if labels is not None:
        question = _before_last_answer(labels, question)
    visual_mask = layout.visual_mask()
    turn_ends = is_token(layout.input_ids, family.turn_end_ids(model)) & question
    structure = is_token(layout.input_ids, family.structure_ids(model))
    text = question & ~visual_mask & ~turn_ends & ~structure
    return find_instruction_tokens(text, visual_mask & question, turn_ends, instruction)


def check_depth(model: Any, family: ModelFamily, depth: int) -> None:
    """Check that the model has a decoder layer `depth`.

    Raises:
        ValueError: The model has no such layer.
    """
    if depth == 0:
        return
    try:
        layers = len(family.decoder(model).layers)
    except AttributeError as error:
        raise ValueError(
            f"{type(model).__name__} can only be scored at layer 0: leave scoring_depth at 0."
        ) from error
    if not 0 < depth < layers:
        raise ValueError(
            f"scoring_depth must be from 0 to {layers - 1} for this model, but it is {depth}."
        )


class _ReachedError(Exception):
    """Stops a forward at the scoring layer."""


@torch.no_grad()
def _run_layers(decoder: Any, prompt: MultimodalPrompt, depth: int) -> Tensor:
    """Hidden states [B, S, D] after `depth` layers of the stock decoder, on the whole prompt."""
    found: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _ReachedError

    handle = decoder.layers[depth].register_forward_pre_hook(stop, with_kwargs=True)
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


def _before_last_answer(labels: Tensor, attention_mask: Tensor) -> Tensor:
    """Tokens before the last run of labelled tokens, bool [B, S].

    A sample labelled from its first token on, or nowhere, has no separate question: all its tokens
    count.
    """
    labelled = labels != -100
    starts = labelled & ~torch.nn.functional.pad(labelled, (1, 0))[:, :-1]
    positions = torch.arange(labels.shape[1], device=labels.device)
    last_start = torch.where(starts, positions, -1).amax(dim=1, keepdim=True)  # [B, 1]
    before = attention_mask & (positions < last_start)
    return torch.where(before.any(dim=1, keepdim=True), before, attention_mask)
