"""Every family, by kind of check, prompts, attention and dtype; the stock model is the reference.

One cell of most kinds runs for each family by default, all of them with `--matrix`.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import pytest
import torch
import transformers
from eager_attention import assert_scores_and_tokens, eager_scores
from errors import one_sentence
from moved_positions import moved_up
from packaging.version import Version
from pairs import HALF, ModelPair, answer, assert_same, make_pair, masked_inputs, sample_states
from relevance_reference import expected_relevance
from tiny_models import (
    every_family,
    make_inputs,
    skipped_before,
    tiny_base_model,
    tiny_family,
    tiny_model,
)

from hf_token_compress import TokenCompressionConfig, compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.compression.rewriting import with_whole_features
from hf_token_compress.models.registry import model_family
from hf_token_compress.models.verified import VERIFIED
from hf_token_compress.relevance import relevance
from hf_token_compress.relevance.explain import run_vision

pytestmark = pytest.mark.core

GREEDY = {"max_new_tokens": 5, "do_sample": False}
LOGITS = {"return_dict_in_generate": True, "output_logits": True}
GRID = {"position_ids": "grid", "retention_ratio": 0.25, "structure_share": 0.0}


class Cell(NamedTuple):
    """One cell of the matrix."""

    kind: str
    family: str
    title: str
    attention: str
    dtype: torch.dtype

    @property
    def pair(self) -> ModelPair:
        """Stock and compressed model; half of the visual tokens are kept."""
        return _pair(self.family, self.attention, self.dtype)

    def inputs(self, **options: Any) -> dict[str, Any]:
        """The batch of the cell."""
        prompts = tiny_family(self.family).prompts[self.title]
        return make_inputs(prompts, family=self.family, dtype=self.dtype, **options)

    @contextmanager
    def stock(self) -> Iterator[None]:
        """Around what the stock model does: where it is known to fail, it must."""
        faults, kind = tiny_family(self.family).faults, self.kind.removeprefix("grid_")
        fault = faults.get(kind) or faults.get(f"{kind}-{self.title}")
        if fault is None or Version(transformers.__version__) < Version(fault.since):
            yield
            return
        with pytest.raises(fault.error, match=fault.message):
            yield
        pytest.xfail(f"The stock model fails itself: {fault.message}")


@functools.lru_cache(maxsize=2)
def _pair(family: str, attention: str, dtype: torch.dtype) -> ModelPair:
    return make_pair(HALF, family=family, attention=attention, dtype=dtype)


def prepared_inputs(cell: Cell, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that the compressed model gives to the stock forward."""
    return dict(prepare_inputs(cell.pair.compressed, **inputs))


def keeping_all_equals_stock(cell: Cell, **changes: Any) -> None:
    inputs = cell.inputs(padding_side="right")
    with cell.stock():
        expected = cell.pair.stock(**inputs).logits
    setting = {**changes, "retention_ratio": 1.0}
    assert torch.equal(cell.pair.compressed(**inputs, token_compression=setting).logits, expected)


def keeping_all_of_a_base_model_equals_stock(cell: Cell) -> None:
    stock = tiny_base_model(cell.attention, cell.dtype, family=cell.family)
    inputs = cell.inputs()
    with cell.stock():
        expected = stock(**inputs).last_hidden_state
    compressed = compress(stock, TokenCompressionConfig(retention_ratio=1.0, min_visual_tokens=0))
    assert torch.equal(compressed(**inputs).last_hidden_state, expected)


def equals_stock_on_prepared_inputs(cell: Cell) -> None:
    inputs = cell.inputs()
    prepared = prepared_inputs(cell, inputs)
    with cell.stock():
        expected = cell.pair.stock(**prepared).logits
    assert torch.equal(cell.pair.compressed(**inputs).logits, expected)
    for sample in cell.pair.compressed.token_compression.last.samples:
        assert abs(2 * int(sample.kept_visual.sum()) - len(sample.kept_visual)) <= 1


def equals_stock_with_dropped_tokens_hidden(cell: Cell, **changes: Any) -> None:
    inputs = cell.inputs(padding_side="right")
    actual = cell.pair.compressed(**inputs, token_compression=changes).logits
    hidden, samples = masked_inputs(cell.pair, inputs), _samples(cell)
    if changes.get("position_ids") == "grid":
        whole = hidden["position_ids"].clone()
        # Where there are four axes, the first only says where sequences begin.
        axes = whole[1:] if whole.ndim == 3 and len(whole) == 4 else whole
        for number, sample in enumerate(samples):
            visuals = [own.positions for own in sample.visuals]
            keep = hidden["attention_mask"][number]
            axes[..., number, :] = moved_up(axes[..., number, :], keep, visuals)
        assert not torch.equal(hidden["position_ids"], whole)
        hidden["position_ids"] = whole
    with cell.stock():
        expected = cell.pair.stock(**hidden).logits
    for number, sample in enumerate(samples):
        own = sample_states(actual, number, inputs, samples)
        assert_same(own, expected[number, sample.kept_indices])


def given_features_are_compressed_like_pixels(cell: Cell) -> None:
    inputs = cell.inputs()
    expected = cell.pair.compressed(**inputs).logits
    outputs = {}
    for modality in ("image", "video"):
        encode = getattr(cell.pair.stock.base_model, f"get_{modality}_features", None)
        accepted = inspect.signature(encode).parameters if encode else {}
        arguments = {name: inputs[name] for name in accepted if name in inputs}
        pixels = [name for name in arguments if name.startswith("pixel_values")]
        if pixels:
            outputs[modality] = encode(**arguments, return_dict=True)
            for name in pixels:
                del inputs[name]
    if not outputs:
        pytest.skip("the model encodes videos as images")
    assert torch.equal(cell.pair.compressed(**inputs, mm_encoder_outputs=outputs).logits, expected)


def given_whole_features_are_read_like_pixels(cell: Cell) -> None:
    """Those of the batch, and those of each sample alone."""
    stock, inputs = cell.pair.stock, cell.inputs()
    family = model_family(type(stock))
    vision = run_vision(stock, family, inputs)
    given = with_whole_features(family, inputs, vision.encoded)
    with cell.stock():
        expected = stock.generate(**inputs, **GREEDY, **LOGITS)
    actual = stock.generate(**given, **GREEDY, **LOGITS)
    assert torch.equal(actual.sequences, expected.sequences)
    assert torch.equal(torch.stack(actual.logits), torch.stack(expected.logits))
    for number, prompt in enumerate(tiny_family(cell.family).prompts[cell.title]):
        own = make_inputs([prompt], family=cell.family, dtype=cell.dtype)
        of_batch = with_whole_features(family, own, vision.encoded_of([number]))
        expected, _ = read_prompt(stock, own)
        actual, _ = read_prompt(stock, of_batch)
        assert_same(actual.inputs_embeds, expected.inputs_embeds)
        assert torch.equal(actual.visual_mask, expected.visual_mask)
        assert torch.equal(actual.position_ids, expected.position_ids)


def a_sample_in_a_batch_equals_the_sample_alone(cell: Cell, **changes: Any) -> None:
    prompts = tiny_family(cell.family).prompts[cell.title]
    inputs = cell.inputs()
    together = cell.pair.compressed(**inputs, token_compression=changes).logits
    samples = _samples(cell)
    for number, prompt in enumerate(prompts):
        own = make_inputs([prompt], family=cell.family)
        alone = cell.pair.compressed(**own, token_compression=changes).logits[0]
        assert_same(sample_states(together, number, inputs, samples), alone)


def cached_equals_recomputed(cell: Cell, **changes: Any) -> None:
    inputs, model = cell.inputs(), cell.pair.compressed
    options = {**GREEDY, **LOGITS, "token_compression": changes}
    cached = model.generate(**inputs, **options)
    with cell.stock():
        cell.pair.stock.generate(**inputs, **GREEDY, use_cache=False)
    recomputed = model.generate(**inputs, **options, use_cache=False)
    assert torch.equal(cached.sequences, recomputed.sequences)
    assert_same(torch.stack(cached.logits), torch.stack(recomputed.logits))
    assert_same(cached.logits[0], model(**inputs, token_compression=changes).logits[:, -1])


def _samples(cell: Cell) -> Any:
    return cell.pair.compressed.token_compression.last.samples


def _with_grid_positions(check: Callable[..., None]) -> Callable[[Cell], None]:
    """The check under the policy "grid", or that models are refused that cannot follow it."""

    def checked(cell: Cell) -> None:
        family = model_family(type(cell.pair.stock))
        if cell.title != "text_only" and (family.renumbers_tokens or family.numbers_visuals):
            with one_sentence(ValueError, "position_ids='grid'"):
                cell.pair.compressed(**cell.inputs(), token_compression=GRID)
            return
        check(cell, **GRID)

    return checked


def _generates_as_stock(cell: Cell, **options: Any) -> None:
    inputs = cell.inputs()
    prepared = prepared_inputs(cell, inputs)
    with cell.stock():
        expected_whole = cell.pair.stock.generate(**inputs, **GREEDY, **options)
        expected = cell.pair.stock.generate(**prepared, **GREEDY, **options)
    actual = cell.pair.compressed.generate(**inputs, **GREEDY, **options)
    assert torch.equal(answer(actual, inputs), answer(expected, prepared))
    whole = cell.pair.compressed.generate(**inputs, **GREEDY, **options, token_compression=1.0)
    assert torch.equal(whole, expected_whole)


def loss_equals_stock_on_prepared_inputs(cell: Cell) -> None:
    inputs = cell.inputs(padding_side="right")
    real = inputs["attention_mask"].bool()
    from_end = real.flip(1).cumsum(1).flip(1)
    inputs["labels"] = torch.where(real & (from_end <= 3), inputs["input_ids"], -100)
    prepared = prepared_inputs(cell, inputs)
    with cell.stock():
        expected = cell.pair.stock(**prepared).loss
    assert expected.isfinite()
    assert torch.equal(cell.pair.compressed(**inputs).loss, expected)


def _scores_equal_eager_attention(cell: Cell, depth: int) -> None:
    """At the first layer with an attention map, from that depth on."""
    config = TokenCompressionConfig(
        retention_ratio=0.25,
        min_visual_tokens=0,
        min_tokens_per_visual=0,
        structure_share=0.0,
        scorer="attention",
        scorer_options={"scoring_depth": depth},
    )
    inputs = cell.inputs()
    stock = cell.pair.stock
    compressed = compress(copy.deepcopy(stock), config)
    prepare_inputs(compressed, **inputs)
    prompt, _ = read_prompt(stock, inputs)
    with cell.stock():
        layers = tiny_family(cell.family).attention_layers
        expected = eager_scores(stock, inputs, prompt, depth, layers)
    assert_scores_and_tokens(compressed.token_compression.last.samples, expected, prompt, config)


@torch.enable_grad()
def relevance_equals_stored_maps(cell: Cell) -> None:
    """Or it is refused, where the table of families says so."""
    inputs, answer = cell.inputs(), torch.tensor([5, 7])
    model = tiny_model(cell.attention, family=cell.family)
    explain = functools.partial(
        relevance, model, inputs, answer_ids=[answer], rule="gae", return_per_token=True
    )
    if not VERIFIED[cell.family].teacher:
        with one_sentence(ValueError, "attention"):
            explain()
        return
    eager = tiny_model("eager", family=cell.family)
    answer_type = tiny_family(cell.family).answer_type
    with cell.stock():
        expected = expected_relevance(eager, inputs, answer, "gae", answer_type)
    actual = explain().samples[0].per_token
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


class Kind(NamedTuple):
    """One kind of check.

    Attributes:
        check: Raises unless the cell is right.
        default: The prompts of the cell that runs by default: the first that a family has. Without
            them, none runs by default.
        exact: Whether outputs are equal to the bit, so that bfloat16 can be compared too.
        prompts: Whether the check is about batches of several prompts, or about one prompt alone;
            None if about both.
        since: First version of Transformers that can do it.
        families: Families for which the cell runs by default; all if there are none.
    """

    check: Callable[[Cell], None]
    default: tuple[str, ...] = ("ragged",)
    exact: bool = True
    prompts: Literal["one", "several"] | None = None
    since: str = "5.19.0"
    families: tuple[str, ...] = ()


ALL = ("ragged_videos", "ragged")
ABOUT_VISUALS = (
    "prepared",
    "hidden",
    "features",
    "whole_features",
    "teacher",
    "scores",
    "deeper_scores",
    "grid_hidden",
)
GRID_FAMILIES = ("qwen2_vl", "llava_onevision", "hunyuan_vl")
KINDS = {
    "keep_all": Kind(keeping_all_equals_stock, ALL),
    "base": Kind(keeping_all_of_a_base_model_equals_stock),
    "prepared": Kind(equals_stock_on_prepared_inputs, ALL),
    "hidden": Kind(equals_stock_with_dropped_tokens_hidden, ALL, exact=False),
    "features": Kind(given_features_are_compressed_like_pixels, ("one_image",)),
    "whole_features": Kind(given_whole_features_are_read_like_pixels, (), exact=False),
    "alone": Kind(a_sample_in_a_batch_equals_the_sample_alone, ALL, exact=False, prompts="several"),
    "cached": Kind(cached_equals_recomputed, ("one_image",), exact=False),
    # Positions of `prepare_inputs` count padding, those of `generate` do not: equal up to rounding.
    "greedy": Kind(_generates_as_stock, exact=False),
    "beams": Kind(
        functools.partial(_generates_as_stock, num_beams=3), ("several_turns",), exact=False
    ),
    "static": Kind(
        functools.partial(_generates_as_stock, cache_implementation="static"),
        ("one_image",),
        exact=False,
    ),
    "chunked": Kind(
        functools.partial(_generates_as_stock, prefill_chunk_size=7),
        ("several_turns",),
        exact=False,
        since="5.23.0",
    ),
    "labels": Kind(loss_equals_stock_on_prepared_inputs, ("several_images",)),
    "teacher": Kind(relevance_equals_stored_maps, ("one_image",), exact=False, prompts="one"),
    "scores": Kind(functools.partial(_scores_equal_eager_attention, depth=0), exact=False),
    "deeper_scores": Kind(
        functools.partial(_scores_equal_eager_attention, depth=2), ALL, exact=False
    ),
    "grid_keep_all": Kind(
        _with_grid_positions(keeping_all_equals_stock), ALL, families=GRID_FAMILIES[:2]
    ),
    "grid_hidden": Kind(
        _with_grid_positions(equals_stock_with_dropped_tokens_hidden),
        ALL,
        exact=False,
        families=GRID_FAMILIES,
    ),
    "grid_alone": Kind(
        _with_grid_positions(a_sample_in_a_batch_equals_the_sample_alone),
        ALL,
        exact=False,
        prompts="several",
        families=GRID_FAMILIES[:2],
    ),
    "grid_cached": Kind(
        _with_grid_positions(cached_equals_recomputed),
        ("several_images",),
        exact=False,
        families=GRID_FAMILIES[:2],
    ),
}


def cells(family: str, *, every: bool) -> Iterator[Any]:
    """Cells of one family: one of each kind, or every one."""
    maker = tiny_family(family)
    for name, kind in KINDS.items():
        if not every and kind.families and family not in kind.families:
            continue
        titles = maker.prompts if every else [own for own in kind.default if own in maker.prompts]
        for title in list(titles) if every else titles[:1]:
            number = "one" if len(maker.prompts[title]) == 1 else "several"
            if kind.prompts not in (None, number):
                continue
            if name in ABOUT_VISUALS and title == "text_only":
                continue
            for attention in maker.attentions if every else maker.attentions[:1]:
                for dtype in (torch.float32, torch.bfloat16) if every else (torch.float32,):
                    if dtype is torch.float32 or kind.exact:
                        yield _parameter(Cell(name, family, title, attention, dtype))


def _parameter(cell: Cell) -> Any:
    maker = tiny_family(cell.family)
    since = max(maker.since, KINDS[cell.kind].since, key=Version)
    marks = [skipped_before(since)] if skipped_before(since) else []
    if cell.kind in ("hidden", "grid_hidden") and maker.hiding_differs:
        marks.append(pytest.mark.skip(reason=maker.hiding_differs))
    if reason := maker.stock_differs.get(f"{cell.kind}-{cell.title}"):
        marks.append(pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True))
    bits = str(cell.dtype).removeprefix("torch.")
    return pytest.param(cell, id="-".join([*cell[:4], bits]), marks=marks)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--matrix")
    found = [cell for family in every_family() for cell in cells(family, every=every)]
    metafunc.parametrize("cell", found)


# Some convolutions round in another way where gradients are wanted.
@torch.no_grad()
def test_cell(cell: Cell) -> None:
    KINDS[cell.kind].check(cell)
