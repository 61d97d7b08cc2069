"""Both networks: the output for a prompt depends on its own attention and grids only."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from mappers import HEADS, NETWORKS, make_input, make_mapper
from pairs import assert_same

from hf_token_compress.mapper import MapperInput
from hf_token_compress.mapper.batch import MapperBatch
from hf_token_compress.mapper.conv1d import ACTIVATIONS, Conv1dNetwork
from hf_token_compress.mapper.grid import GridNetwork
from hf_token_compress.mapper.inputs import INPUTS

pytestmark = pytest.mark.core

MEAN_OVER_HEADS = {**NETWORKS["conv1d"], "input_heads": "mean"}
each_network = pytest.mark.parametrize(
    ("network", "options"),
    [
        ("conv1d", {}),
        ("grid", {}),
        ("conv1d", {"network_options": MEAN_OVER_HEADS}),
        ("conv1d", {"inputs": INPUTS}),
        ("grid", {"inputs": INPUTS}),
    ],
)
grid_shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
prompts = st.tuples(st.lists(grid_shapes, max_size=3), st.integers(0, 3)).filter(
    lambda prompt: bool(prompt[0]) or prompt[1] > 0
)


@pytest.mark.parametrize(
    ("kernel_size", "parameters"), [(3, 177_541), (5, 178_503), (7, 179_465), (9, 180_427)]
)
@pytest.mark.parametrize("heads", [1, 28])
def test_conv1d_has_the_layers_of_the_paper(kernel_size: int, parameters: int, heads: int) -> None:
    """Depthwise (k + 1) x in, pointwise (in + 1) x out; widths 1, 32, 64, 128, 256, 512 and 1."""
    widths = [1, 32, 64, 128, 256, 512]
    by_hand = sum(
        width * (kernel_size + 1) + (width + 1) * following
        for width, following in itertools.pairwise(widths)
    )
    network = Conv1dNetwork(heads=heads, kernel_size=kernel_size, input_heads="mean")
    assert sum(weight.numel() for weight in network.parameters()) == parameters == by_hand + 513
    separate = Conv1dNetwork(heads=heads, kernel_size=kernel_size, input_heads="separate")
    more = (heads - 1) * (kernel_size + 1 + 32)
    assert sum(weight.numel() for weight in separate.parameters()) == parameters + more


@each_network
@given(batch=st.lists(prompts, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_prompt_gets_the_same_alone_and_in_a_batch(
    network: str,
    options: dict[str, Any],
    batch: list[tuple[list[tuple[int, int, int]], int]],
    seed: int,
) -> None:
    mapper = make_mapper(network, **options)
    inputs = [
        make_input(*grids, loose=loose, seed=seed + number)
        for number, (grids, loose) in enumerate(batch)
    ]
    together = mapper.relevance(inputs)
    for item, found in zip(inputs, together, strict=True):
        assert found.shape == (item.count,)
        assert_same(found, mapper.relevance([item])[0])
        assert_same(found.sum(), torch.tensor(1.0))
        assert (found >= 0).all()


@each_network
def test_a_prompt_of_nan_spoils_no_other(network: str, options: dict[str, Any]) -> None:
    """The smaller grid leaves cells of the canvas empty, and the loose tokens lie on none."""
    mapper = make_mapper(network, **options)
    broken, whole = make_input((1, 4, 5)), make_input((1, 2, 3), loose=2, seed=1)
    broken = replace(broken, attention=torch.full_like(broken.attention, torch.nan))
    assert_same(mapper([broken, whole])[1], mapper([whole])[0])


@each_network
def test_a_constant_factor_on_the_attention_changes_nothing(
    network: str, options: dict[str, Any]
) -> None:
    """Such as when half of the attention goes to the system prompt."""
    item = make_input((1, 4, 4))
    scaled = replace(item, attention=item.attention - 0.7)
    mapper = make_mapper(network, **options)
    assert_same(mapper([scaled])[0], mapper([item])[0])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("inputs", [("attention",), ("text",), ("attention", "embedding"), INPUTS])
def test_a_network_sees_its_inputs_and_no_others(network: str, inputs: tuple[str, ...]) -> None:
    mapper = make_mapper(network, inputs=inputs)
    item = make_input((1, 4, 4))
    before = mapper([item])[0]
    for name in INPUTS:
        other = replace(item, **{name: getattr(item, name) + torch.randn(item.count)})
        assert torch.equal(mapper([other])[0], before) is (name not in inputs), name
        if name in inputs[:1]:
            continue
        without = replace(item, **{name: None})
        if name in inputs:
            with one_sentence(ValueError, repr(name)):
                mapper([without])
        elif name != "attention":
            assert torch.equal(mapper([without])[0], before)


def signal_of(mapper: Any, item: MapperInput) -> torch.Tensor:
    """Input channels of each visual token, [N, C]."""
    (signal,) = mapper.network.signal(MapperBatch.of([item]))
    return signal if isinstance(mapper.network, GridNetwork) else signal.T


@pytest.mark.parametrize("network", NETWORKS)
def test_the_channels_of_embeddings_follow_those_of_attention(network: str) -> None:
    item = make_input((1, 3, 5), loose=1)
    mapper = make_mapper(network, inputs=INPUTS[::-1])
    signal = signal_of(mapper, item)  # [N, C]
    alone = signal_of(make_mapper(network), item)
    assert torch.equal(signal[:, :-4], alone)
    channels = torch.cat([item.text, item.embedding])  # [4, N]
    deviation = channels.std(dim=1, correction=0)
    assert_same(signal[:, -4:], ((channels.T - channels.mean(1)) / deviation))


@each_network
def test_scale_and_offset_of_the_channels_of_embeddings_change_nothing(
    network: str, options: dict[str, Any]
) -> None:
    item = make_input((1, 4, 4))
    moved = replace(item, text=3 * item.text + 1, embedding=item.embedding / 7 - 2)
    mapper = make_mapper(network, **options)
    assert_same(mapper([moved])[0], mapper([item])[0])


def test_a_channel_that_does_not_vary_says_nothing() -> None:
    """Rounding errors are not blown up to signals."""
    item = make_input((1, 4, 4))
    even = torch.full_like(item.text, 0.3)
    rounded = even + 1e-7 * torch.randn(even.shape)
    mapper = make_mapper("grid", inputs=INPUTS)
    found = [mapper([replace(item, text=values)])[0] for values in (even, rounded)]
    torch.testing.assert_close(*found, rtol=0, atol=2e-3)
    single = make_input(loose=1)
    assert mapper.relevance([single])[0].tolist() == [1.0]


@pytest.mark.parametrize("scale", ["raw", "share", "log_share"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_conv1d_with_mean_heads_sees_the_mean_attention_only(scale: str, activation: str) -> None:
    options = {"channels": [16, 16], "input_scale": scale, "activation": activation}
    mapper = make_mapper("conv1d", network_options={**options, "input_heads": "mean"})
    item = make_input((1, 3, 4))
    swapped = item.attention.clone()
    swapped[0] = swapped[0].flip(0)  # other heads, the same mean
    swapped[1] = torch.rand_like(swapped[1])
    assert_same(mapper([MapperInput(swapped, item.grids)])[0], mapper([item])[0])
    changed = item.attention.clone()
    changed[0, :, 3] += 2.0
    assert not torch.equal(mapper([MapperInput(changed, item.grids)])[0], mapper([item])[0])


@pytest.mark.parametrize("scale", ["raw", "share", "log_share"])
def test_conv1d_with_separate_heads_sees_the_mean_of_each_head(scale: str) -> None:
    options = {"channels": [16, 16], "input_scale": scale, "input_heads": "separate"}
    mapper = make_mapper("conv1d", network_options=options)
    item = make_input((1, 3, 4))
    other_peaks = item.attention.clone()
    other_peaks[1] = torch.rand_like(other_peaks[1])
    assert_same(mapper([MapperInput(other_peaks, item.grids)])[0], mapper([item])[0])
    swapped = item.attention.flip(1)
    moved = mapper([MapperInput(swapped, item.grids)])[0] - mapper([item])[0]
    assert moved.abs().max() > 1e-4


@pytest.mark.parametrize("input_heads", ["mean", "separate"])
def test_conv1d_scales_the_attention(input_heads: str) -> None:
    item = make_input((1, 2, 3))
    attention = item.attention[0].exp()  # [heads, 6]
    if input_heads == "mean":
        attention = attention.mean(0, keepdim=True)
    share = 6 * attention / attention.sum(-1, keepdim=True)
    for scale, expected in (("raw", attention), ("share", share), ("log_share", share.log())):
        network = Conv1dNetwork(
            heads=HEADS, channels=[2], input_scale=scale, input_heads=input_heads
        )
        assert_same(network.signal(MapperBatch.of([item]))[0], expected)


def test_the_receptive_field_of_conv1d() -> None:
    """Five layers of kernel size 5 see ten tokens on either side."""
    options = {"channels": [16] * 5, "kernel_size": 5, "input_scale": "raw"}
    network = make_mapper("conv1d", network_options=options)
    item = make_input((1, 1, 41))
    changed = item.attention.clone()
    changed[0, :, 20] = 0.0
    with torch.no_grad():
        before, after = network([item])[0], network([MapperInput(changed, item.grids)])[0]
    moved = (before - after).abs() > 0
    assert not moved[:10].any()
    assert not moved[31:].any()
    assert moved[20]


@given(shape=grid_shapes, seed=st.integers(0, 99))
def test_grid_depends_on_grid_positions_and_not_on_the_order(
    shape: tuple[int, int, int], seed: int
) -> None:
    item = make_input(shape, loose=2, seed=seed)
    order = torch.randperm(item.count, generator=torch.Generator().manual_seed(seed))
    moved_to = order.argsort()
    shuffled = MapperInput(item.attention[..., order], (moved_to[item.grids[0]],))
    mapper = make_mapper("grid")
    assert_same(mapper([shuffled])[0], mapper([item])[0][order])


def test_grid_sees_neighbours_above_and_in_the_next_frame() -> None:
    """They are far apart in the sequence."""
    mapper = make_mapper("grid", network_options={"channels": 4, "blocks": 1})
    item = make_input((3, 5, 5), loose=1)
    cells = item.grids[0]
    with torch.no_grad():
        # The summary of the prompt reaches every token.
        mapper.network.blocks[0].whole.weight.zero_()
        before = mapper([item])[0]
        attention = item.attention.clone()
        attention[..., cells[1, 2, 2]] += 1.0
        attention[..., -1] -= 1.0  # keeps the mean over the tokens of each head
        after = mapper([MapperInput(attention, item.grids)])[0]
    moved = set(((before - after).abs() > 1e-6).nonzero().flatten().tolist())
    near = {int(cells[f, r, c]) for f in range(3) for r in (1, 2, 3) for c in (1, 2, 3)}
    assert moved <= near | {item.count - 1}
    for neighbour in (cells[1, 1, 2], cells[1, 2, 1], cells[0, 2, 2], cells[2, 2, 2]):
        assert int(neighbour) in moved


@each_network
def test_every_weight_learns_except_those_that_shift_all_logits(
    network: str, options: dict[str, Any]
) -> None:
    mapper = make_mapper(network, **options)
    inputs = [make_input((1, 4, 4), loose=2), make_input((2, 3, 3))]
    before = mapper.relevance(inputs)
    first, second = mapper(inputs)
    (first.log_softmax(0)[0] + second.log_softmax(0)[5]).backward()
    shifting = [weight for weight in mapper.parameters() if not weight.requires_grad]
    assert shifting
    for name, weight in mapper.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().max() > 1e-5, name
    with torch.no_grad():
        for weight in shifting:
            weight += 1
    assert_same(mapper.relevance(inputs), before)
    assert not torch.equal(mapper(inputs)[0], first)


def test_grid_can_start_from_the_attention_itself() -> None:
    options = {**NETWORKS["grid"], "start_from_attention": True}
    mapper = make_mapper("grid", network_options=options)
    item = make_input((1, 4, 5), (1, 2, 2))
    attention = item.attention[0].exp().mean(0)
    assert_same(mapper.relevance([item])[0], attention / attention.sum())
