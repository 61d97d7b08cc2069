"""The network that reads the words of the instruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from errors import one_sentence
from mappers import HEADS, IDENTITY, make_input
from pairs import assert_same

from hf_token_compress.mapper import MapperConfig, MapperInput, RelevanceMapper
from hf_token_compress.mapper.batch import BatchIndex
from hf_token_compress.mapper.question import coordinates

pytestmark = pytest.mark.core

OPTIONS = {"channels": 8, "question_channels": 6, "word_heads": 2, "match_channels": 4}


def _mapper() -> RelevanceMapper:
    config = MapperConfig(IDENTITY, network="question", network_options=OPTIONS, inputs=("words",))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mapper = RelevanceMapper(config).eval()
        for block in mapper.network.blocks:  # words steer nothing before training
            torch.nn.init.normal_(block.steer.weight)
    return mapper


def _input(*grids: tuple[int, int, int], loose: int = 0, words: int = 3) -> MapperInput:
    item = make_input(*grids, loose=loose)
    generator = torch.Generator().manual_seed(words)
    return replace(
        item,
        tokens=torch.randn(item.count, IDENTITY.hidden_size, generator=generator),
        words=torch.randn(words, IDENTITY.hidden_size, generator=generator),
    )


def test_a_question_gets_the_same_alone_and_in_a_batch() -> None:
    mapper = _mapper()
    inputs = [_input((1, 3, 4), loose=1), _input((2, 2, 2), (1, 4, 2), words=5), _input(loose=2)]
    for item, together in zip(inputs, mapper(inputs), strict=True):
        assert together.shape == (item.count,)
        assert_same(together, mapper([item])[0])


def test_a_question_of_nan_spoils_no_other() -> None:
    mapper, broken, whole = _mapper(), _input((1, 4, 5)), _input((1, 2, 3), loose=2)
    assert broken.tokens is not None
    broken = replace(broken, tokens=torch.full_like(broken.tokens, torch.nan))
    assert_same(mapper([broken, whole])[1], mapper([whole])[0])


def test_the_words_and_their_order_count_and_the_attention_does_not() -> None:
    mapper, item = _mapper(), _input((1, 3, 3))
    before = mapper([item])[0]
    for words in (item.words[:2], item.words.flip(0)):
        assert not torch.allclose(mapper([replace(item, words=words)])[0], before, atol=1e-3)
    attention = torch.zeros(2, HEADS, item.count)
    assert torch.equal(mapper([replace(item, attention=attention)])[0], before)


def test_brighter_and_shifted_embeddings_of_tokens_change_nothing() -> None:
    mapper, item = _mapper(), _input((1, 3, 3))
    moved = replace(item, tokens=5 * item.tokens + 2)
    torch.testing.assert_close(mapper([moved])[0], mapper([item])[0], rtol=1e-4, atol=1e-4)


def test_a_place_is_told_by_its_own_grid() -> None:
    """Centres of cells, whatever other grids are in the batch; the last number is the order."""
    grids = (torch.arange(6).view(1, 2, 3),), (torch.arange(40).view(2, 5, 4),)
    found = coordinates(BatchIndex.of([7, 40], grids, torch.device("cpu")))
    third = 2 / 3
    by_hand = [(0, -0.5, -third), (0, -0.5, 0), (0, -0.5, third)]
    by_hand += [(0, 0.5, -third), (0, 0.5, 0), (0, 0.5, third), (0, 0, 0)]
    assert_same(found[0, :7, :3], torch.tensor(by_hand))
    assert_same(found[0, :7, -1], (2 * torch.arange(7) + 1) / 7 - 1)
    assert_same(found[1, [0, 39], :3], torch.tensor([(-0.5, -0.8, -0.75), (0.5, 0.8, 0.75)]))
    assert found[0, 6, :-1].eq(0).all()


def test_a_question_network_is_saved_and_loaded(tmp_path: Path) -> None:
    mapper, item = _mapper(), _input((1, 2, 2))
    mapper.save_pretrained(tmp_path)
    again = RelevanceMapper.from_pretrained(tmp_path)
    assert again.config == mapper.config
    assert torch.equal(again([item])[0], mapper([item])[0])


def test_it_reads_embeddings_and_nothing_else() -> None:
    with one_sentence(ValueError, "inputs of a mapper 'question'", "'attention'"):
        MapperConfig(IDENTITY, network="question")
    with one_sentence(ValueError, "inputs of a mapper 'grid'", "'words'"):
        MapperConfig(IDENTITY, inputs=("attention", "words"))
    with one_sentence(ValueError, "'words'"):
        _mapper()([make_input((1, 2, 2))])
