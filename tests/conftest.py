from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from pairs import ModelPair, make_pair
from tiny_models import tiny_model

settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)


@pytest.fixture
def pair() -> ModelPair:
    """A stock model and a compressed one with the same weights, a quarter of the tokens kept."""
    return make_pair()


@pytest.fixture(scope="session")
def stock_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that plain Transformers saved."""
    folder = tmp_path_factory.mktemp("stock")
    tiny_model().save_pretrained(folder)
    return folder
