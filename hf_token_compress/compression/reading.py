"""What a scorer sees of the inputs of a stock forward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import InstructionScope, TokenCompressionConfig
from ..models.family import ModelFamily, is_token
from ..models.registry import model_family
from ..notices import warn_once
from ..prompt import MultimodalPrompt, find_instruction_tokens
from ..scorers import Scorer
from ..scoring_layer import ScoringLayer
from ..selection import KeptTokens
from .fast_path import FastPath
from .host import on_host
from .inputs import PromptLayout, check_shape, read_layout
from .labels import answer_tokens
from .precision import host_by_default, without_autocast
from .probe import Probe, decoder_layers
from .rewriting import rewrite_prompt

_WHOLE_PROMPT = TokenCompressionConfig()
_NO_QUESTION = (
    "A prompt has no question after its last image or video, so the tokens that follow these stand "
    "in for it. Attention is causal: text before an image cannot attend to it, so put the question "
    "after the image."
)


class Reading:
    """A batch of prompts as scorers see it; what costs time is computed when it is asked for.

    Args:
        model: The loaded model.
        layout: The batch of B prompts of S tokens.
        probe: Makes what reads its decoder, with RoPE or without.
        fast_path: Its layer 0 if that allows projecting only the instruction tokens, else None.
        instruction_mask: bool [B, S] on the CPU.
        all_asked: Whether every prompt has a question after its images and videos.

    Attributes:
        prompt: The prompts.
    """

    def __init__(
        self,
        model: Any,
        layout: PromptLayout,
        probe: Callable[[bool], Probe],
        fast_path: FastPath | None,
        instruction_mask: Tensor,
        all_asked: bool,
    ) -> None:
        self._model = model
        self._layout = layout
        self._probe = probe
        self._fast_path = fast_path
        self._all_asked = all_asked
        # A scorer may keep the prompt and ask for its embeddings later.
        gradients = torch.is_grad_enabled()

        def embed() -> Tensor:
            with torch.set_grad_enabled(gradients), without_autocast():
                if fast_path is not None:
                    return fast_path.embeds(model, layout)
                return probe(True).entry().inputs_embeds

        self.prompt = layout.prompt(instruction_mask, embed)

    def scoring_layer(
        self, depth: int, *, query_mask: Tensor | None = None, rotary: bool = True
    ) -> ScoringLayer:
        """The scoring layer after `depth` decoder layers.

        Args:
            depth: Decoder layers that run before it; 0 without RoPE.
            query_mask: bool [B, S], tokens whose queries it has; by default the instruction.
            rotary: Whether RoPE turns queries and keys.

        Raises:
            ValueError: A prompt has visual tokens, but no instruction token, the decoder's
                attention cannot be read, or it has no RoPE to leave out.
        """
        return self._layers(depth, query_mask, (rotary,))[0]

    def scoring_layers(self, scorer: Scorer) -> dict[str, ScoringLayer]:
        """The scoring layers that a scorer needs, by the names of its arguments.

        Raises:
            ValueError: As in `scoring_layer`.
        """
        wanted = [name for name in ("scoring_layer", "unrotated_layer") if name in scorer.needs]
        own_mask = scorer.query_mask(self.prompt) if "scoring_layer" in wanted else None
        if len(wanted) == 2 and scorer.scoring_depth == 0 and own_mask is self.prompt.query_mask:
            return dict(zip(wanted, self._layers(0, own_mask, (True, False)), strict=True))
        return {
            name: self.scoring_layer(scorer.scoring_depth, query_mask=own_mask)
            if name == "scoring_layer"
            else self.scoring_layer(0, rotary=False)
            for name in wanted
        }

    @without_autocast()
    def _layers(
        self, depth: int, query_mask: Tensor | None, rotary: Sequence[bool]
    ) -> list[ScoringLayer]:
        """One scoring layer for each entry of `rotary`, as in `scoring_layer`."""
        if not self._all_asked:
            warn_once(_NO_QUESTION)
        prompt = self.prompt
        prompt.check_instruction()
        if query_mask is None:
            query_mask = prompt.query_mask  # [B, S]
        if self._fast_path is not None and depth == 0:
            embeds = prompt.inputs_embeds  # [B, S, D]
            queries = prompt.query_tokens(query_mask, embeds.device)
            return self._fast_path.scoring_layers(self._layout, embeds, queries, rotary)
        return [self._of_probe(depth, query_mask, own) for own in rotary]

    def _of_probe(self, depth: int, query_mask: Tensor, rotary: bool) -> ScoringLayer:
        probe = self._probe(rotary)
        call = probe.attention(depth)
        if not rotary:
            probe.check_one_place()
        queries = self.prompt.query_tokens(query_mask, call.key.device)
        return call.scoring_layer(queries, self.prompt.attention_mask)


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
    check_depth(model, scoring_depth)
    reading = read(model, family, layout, inputs, instruction)
    return reading.prompt, reading.scoring_layer(scoring_depth)


@host_by_default()
def read(
    model: Any,
    family: ModelFamily,
    layout: PromptLayout,
    inputs: Mapping[str, Any],
    instruction: InstructionScope,
    *,
    host: Mapping[str, Any] | None = None,
    instruction_mask: Tensor | None = None,
    fast_path: FastPath | None = None,
) -> Reading:
    """Read a batch whose layout is known.

    Args:
        model: The loaded model.
        family: Its family.
        layout: The batch of B prompts of S tokens.
        inputs: Keyword arguments of the stock forward, with the answer as in `answer_tokens`.
        instruction: Which text is the instruction.
        host: What `on_host` makes of the inputs, if it was called.
        instruction_mask: bool or 0/1 [B, S], overrides which tokens are the instruction.
        fast_path: What was found out about layer 0 of the model.

    Raises:
        TypeError, ValueError: `instruction_mask` does not fit.
    """
    all_asked = True
    if instruction_mask is None:
        given = on_host(inputs) if host is None else host
        instruction_mask, all_asked = _instruction_tokens(model, family, layout, instruction, given)
    check_shape("instruction_mask", instruction_mask, layout.input_ids)
    mask = layout.on_host.attention_mask
    everything = KeptTokens(layout.attention_mask, tuple(mask.sum(dim=1).tolist()), mask)

    @functools.cache
    def probe(rotary: bool) -> Probe:
        whole = rewrite_prompt(model, family, _WHOLE_PROMPT, inputs, layout, everything, "left")
        # Without a mask, Transformers would look for packed sequences.
        given = {**whole.inputs, "attention_mask": layout.attention_mask.long()}
        if not rotary:
            # RoPE only tells how far tokens are from each other.
            one_place = torch.zeros_like(layout.position_ids)  # [A, B, S] or [B, S]
            axis = family.text_order_axis(one_place)
            if axis is not None:
                one_place[axis] = layout.position_ids[axis]
            given["position_ids"] = one_place
        return Probe(model, given)

    if fast_path is not None and not fast_path.fits(model):
        fast_path = None
    instruction_mask = instruction_mask.to(mask)  # bool, on the CPU
    return Reading(model, layout, probe, fast_path, instruction_mask, all_asked)


def _instruction_tokens(
    model: Any,
    family: ModelFamily,
    layout: PromptLayout,
    instruction: InstructionScope,
    inputs: Mapping[str, Any],
) -> tuple[Tensor, bool]:
    """As `find_instruction_tokens`: the instruction tokens, and whether every prompt asks.

    Where the answer is known, only tokens before it can be instruction.
    """
    question, visual_mask = layout.on_host.attention_mask, layout.on_host.visual_mask
    answer = answer_tokens(inputs, visual_mask)
    if answer is not None:
        question = _before_last_answer(answer, visual_mask, question)
    input_ids = layout.on_host.input_ids
    turn_ends = is_token(input_ids, family.turn_end_ids(model)) & question
    structure = is_token(input_ids, family.structure_ids(model))
    text = question & ~visual_mask & ~turn_ends & ~structure
    return find_instruction_tokens(text, visual_mask & question, turn_ends, instruction)


def check_depth(model: Any, depth: int) -> None:
    """Check that the model has a decoder layer `depth`.

    Raises:
        ValueError: The model has no such layer.
    """
    if depth == 0:
        return
    layers = len(decoder_layers(model.get_decoder()))
    if layers == 0:
        raise ValueError(
            f"{type(model).__name__} can only be scored at layer 0: leave scoring_depth at 0."
        )
    if not 0 < depth < layers:
        raise ValueError(
            f"scoring_depth must be from 0 to {layers - 1} for this model, but it is {depth}."
        )


def _before_last_answer(answer: Tensor, visual_mask: Tensor, attention_mask: Tensor) -> Tensor:
    """Tokens before the last run of answer tokens, bool [B, S].

    A sample that answers from its first token on, or nowhere, has no separate question: all its
    tokens count.
    """
    starts = answer & ~torch.nn.functional.pad(answer, (1, 0))[:, :-1]
    positions = torch.arange(answer.shape[1], device=answer.device)
    last_start = torch.where(starts, positions, -1).amax(dim=1, keepdim=True)  # [B, 1]
    before = attention_mask & (positions < last_start)
    question = before & ~answer & ~visual_mask
    return torch.where(question.any(dim=1, keepdim=True), before, attention_mask)
