"""A model made from the class of a compressed model is a stock model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pairs import make_pair
from tiny_models import FAMILIES, ONE_IMAGE, make_inputs
from transformers import AutoModelForImageTextToText

from hf_token_compress import compress

pytestmark = pytest.mark.core

WAYS: dict[str, Callable[[Any], Any]] = {
    "class": lambda model: type(model)(model.config),
    "keyword": lambda model: type(model)(config=model.config),
    "_from_config": lambda model: type(model)._from_config(model.config, dtype=torch.float32),
    "auto class": lambda model: AutoModelForImageTextToText.from_config(model.config),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_made_from_the_config(family: str, way: str, tmp_path: Path) -> None:
    stock, compressed = make_pair(family=family)
    torch.manual_seed(3)
    made = WAYS[way](compressed).eval()
    torch.manual_seed(3)
    expected = WAYS[way](stock).eval()
    assert type(made) is type(expected) is type(stock)
    inputs = make_inputs([ONE_IMAGE], family=family)
    with torch.no_grad():
        assert torch.equal(made(**inputs).logits, expected(**inputs).logits)
    answers = [model.generate(**inputs, max_new_tokens=2) for model in (made, expected)]
    assert torch.equal(*answers)
    made.save_pretrained(tmp_path)
    assert "token_compression" not in (tmp_path / "config.json").read_text(encoding="utf-8")
    assert type(compress(made, {})) is type(compressed)


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_by_the_class(family: str, tmp_path: Path) -> None:
    """The setting is that of the folder or of the call, as with the stock class."""
    stock, compressed = make_pair(family=family)
    stock.save_pretrained(tmp_path / "stock")
    compressed.save_pretrained(tmp_path / "compressed")
    cls = type(compressed)
    assert type(cls.from_pretrained(tmp_path / "stock")) is type(stock)
    loaded = cls.from_pretrained(tmp_path / "compressed")
    assert loaded.token_compression.config == compressed.token_compression.config
    inputs = make_inputs([ONE_IMAGE], family=family)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, compressed(**inputs).logits)


def test_copies_stay_compressed() -> None:
    compressed = make_pair().compressed
    for other in (copy.copy(compressed), copy.deepcopy(compressed)):
        assert type(other) is type(compressed)
    assert type(pickle.loads(pickle.dumps(compressed))) is type(compressed)
