"""Cells of the golden comparison: what a compressed call keeps, and what it hands to the stock
model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from unittest import mock

import torch
from tiny_models import make_inputs, tiny_family, tiny_model
from torch import Tensor

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.identity import identify
from hf_token_compress.config import MODALITIES
from hf_token_compress.mapper import MapperConfig, MapperSet, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS
from hf_token_compress.scorers.mapper import MapperScorer

NETWORKS: dict[str, dict[str, Any]] = {
    "conv1d": {"channels": [4, 8]},
    "grid": {"channels": 8, "blocks": 2},
}
"""Small mappers with all inputs."""

OPTIONS: dict[str, dict[str, Any]] = {
    "half": {},
    "quarter": {"retention_ratio": 0.25},
    "one_token": {"retention_ratio": 0.01},
    "everything": {"retention_ratio": 1.0},
    "top_k": {"retention_ratio": 0.25, "selection": "top_k"},
    "diverse": {"retention_ratio": 0.25, "selection": "diverse"},
    "top_p": {"retention_ratio": 0.75, "top_p": 0.5},
    "maximum": {"max_visual_tokens": 5},
    "minimum_of_prompt": {"min_visual_tokens": 40},
    "minimum_of_visual": {"retention_ratio": 0.1, "min_tokens_per_visual": 3},
    "no_minimum": {"retention_ratio": 0.05, "min_tokens_per_visual": 0},
    "minimum_of_frame": {"retention_ratio": 0.2, "min_tokens_per_frame": 3},
    "minimums": {"retention_ratio": 0.1, "min_tokens_per_frame": 2, "min_tokens_per_visual": 9},
    "minimum_and_diverse": {
        "retention_ratio": 0.4,
        "min_tokens_per_frame": 2,
        "selection": "diverse",
    },
    "minimum_and_top_p": {"top_p": 0.3, "min_tokens_per_frame": 2},
    "no_structure": {"structure_share": 0.0},
    "structure_first": {"retention_ratio": 0.25, "structure_share": 1.0},
    "structure_and_top_p": {"top_p": 0.4, "structure_share": 1.0},
    "grid_positions": {"retention_ratio": 0.2, "position_ids": "grid"},
    "compact_positions": {"retention_ratio": 0.2, "position_ids": "compact"},
    "all_text": {"instruction": "all_text"},
    "after_visual": {"instruction": "after_visual"},
}
"""Settings, as changes of one that keeps half and leaves no prompt alone."""

Call = Literal["prepare", "uncached", "forward", "labels", "ratios", "instruction_mask"]


class Cell(NamedTuple):
    """One call of a compressed model.

    Attributes:
        family: As in `tiny_family`.
        title: Its prompts.
        scorer: A scorer, or the network of a mapper.
        option: One of `OPTIONS`.
        call: "prepare" is `prepare_inputs`, "uncached" the same for a `generate` without a cache,
            "forward" a forward; the others are forwards with labels, with a retention ratio for
            each sample, or with an instruction mask.
        padding_side: Where the caller's batch is padded.
        dtype: dtype of the model.
    """

    family: str
    title: str
    scorer: str = "attention"
    option: str = "half"
    call: Call = "prepare"
    padding_side: Literal["left", "right"] = "left"
    dtype: torch.dtype = torch.float32

    @property
    def config(self) -> dict[str, Any]:
        """The setting, without the scorer of a mapper."""
        scorer = "attention" if self.scorer in NETWORKS else self.scorer
        return {
            "retention_ratio": 0.5,
            "min_visual_tokens": 0,
            "scorer": scorer,
            **OPTIONS[self.option],
        }

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The caller's inputs, with labels on the text after the images where it asks for them."""
        prompts = tiny_family(self.family).prompts[self.title]
        options: dict[str, Any] = {"padding_side": self.padding_side, "dtype": self.dtype}
        inputs: dict[str, Any] = make_inputs(prompts, family=self.family, **options)
        if self.call == "labels":
            answer = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
            answer[:, : -3 if self.padding_side == "left" else -6] = -100
            inputs["labels"] = answer
        return inputs

    @property
    def call_options(self) -> dict[str, Any]:
        """The options of the call that are no inputs of the stock model."""
        if self.call == "ratios":
            count = len(tiny_family(self.family).prompts[self.title])
            return {"token_compression": [(1.0, 0.25, 0.5, 0.1)[i % 4] for i in range(count)]}
        if self.call == "instruction_mask":
            mask = self.inputs["attention_mask"].bool().clone()
            mask[:, ::2] = False
            return {"instruction_mask": mask}
        return {}


class Observed(NamedTuple):
    """What a call did.

    Attributes:
        inputs: What the stock model gets.
        report: The report of the call.
    """

    inputs: dict[str, Any]
    report: Any


@functools.lru_cache(maxsize=4)
def stock_model(family: str, dtype: torch.dtype) -> Any:
    """A tiny model that stays as it is."""
    return tiny_model(family=family, dtype=dtype)


@functools.lru_cache(maxsize=4)
def _model(family: str, dtype: torch.dtype) -> Any:
    return tiny_model(family=family, dtype=dtype)


@functools.lru_cache(maxsize=4)
def _mappers(family: str, dtype: torch.dtype, network: str) -> MapperSet:
    model = stock_model(family, dtype)
    mappers: dict[Any, RelevanceMapper] = {}
    for modality in MODALITIES:
        torch.manual_seed(0)
        config = MapperConfig(
            identify(model),
            network=network,
            network_options=NETWORKS[network],
            inputs=tuple(INPUTS),
            modality=modality,
        )
        mappers[modality] = RelevanceMapper(config).eval()
    return MapperSet(mappers, "in memory")


@torch.no_grad()
def observe(cell: Cell) -> Observed:
    """Make the call of a cell."""
    model = compress(_model(cell.family, cell.dtype), cell.config)
    if cell.scorer in NETWORKS:
        mappers = _mappers(cell.family, cell.dtype, cell.scorer)
        model.token_compression.scorer = MapperScorer(mappers)
    inputs, options = cell.inputs, cell.call_options
    if cell.call in ("prepare", "uncached"):
        if cell.call == "uncached":
            options["use_cache"] = False
        given = dict(prepare_inputs(model, **inputs, **options))
    else:
        given = _given_to_stock(model, {**inputs, **options})
    return Observed(given, model.token_compression.last)


def _given_to_stock(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a compressed forward hands to the stock forward."""
    stock_forward = model.stock_class.forward
    given: dict[str, Any] = {}

    @functools.wraps(stock_forward)
    def noted(self: Any, **inputs: Any) -> Any:
        given.update(inputs)
        return stock_forward(self, **inputs)

    with mock.patch.object(model.stock_class, "forward", noted):
        model(**arguments)
    return given
