"""What a scorer sees of the inputs of a stock forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..config import InstructionScope
from ..models.family import ModelFamily, is_token
from ..models.registry import model_family
from ..prompt import MultimodalPrompt, find_instruction_tokens
from ..scoring_layer import ScoringLayer
from .depth import at_depth
from .inputs import PromptLayout, encode_visuals, read_layout


def read_prompt(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    instruction: InstructionScope = "last_turn",
    scoring_depth: int = 0,
) -> tuple[MultimodalPrompt, ScoringLayer]:
    """The prompt and the layer that a scorer of this model would be given for these inputs.

    Call it under `torch.no_grad()` unless gradients are to reach the vision part.

    Args:
        model: A Transformers model of a supported family, compressed or not.
        inputs: What its processor returned, with images or videos.
        instruction: Rows that ask the question, as in `TokenCompressionConfig`.
        scoring_depth: Decoder layers that run before the one that is scored at.

    Raises:
        TypeError, ValueError: As in a compressed call.
    """
    family = model_family(getattr(model, "stock_class", type(model)))
    layout = read_layout(model, family, inputs, encode_visuals(model, family, inputs))
    rows = instruction_tokens(model, family, layout, instruction, layout.attention_mask)
    prompt = layout.prompt(family.embed(model, layout.input_ids), rows)
    return at_depth(model, family, prompt, scoring_depth)


def instruction_tokens(
    model: Any,
    family: ModelFamily,
    layout: PromptLayout,
    instruction: InstructionScope,
    question: Tensor,
) -> Tensor:
    """Rows that ask the question, bool [B, S].

    Args:
        model: The loaded model.
        family: Its family.
        layout: The prompts.
        instruction: Which text counts.
        question: bool [B, S], columns that may count at all.
    """
    visual_mask = layout.visual_mask()
    turn_ends = is_token(layout.input_ids, family.turn_end_ids(model)) & question
    structure = is_token(layout.input_ids, family.structure_ids(model))
    text = question & ~visual_mask & ~turn_ends & ~structure
    return find_instruction_tokens(text, visual_mask & question, turn_ends, instruction)
