from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from interpreter import Interpreter
from pairs import ModelPair, make_pair
from tiny_models import tiny_model

settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("suite")
# Files run side by side, and threads that outnumber the cores wait for each other at every step.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--matrix", action="store_true", help="run every cell of the test matrix, not one a kind"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--matrix"):
        return
    left_out = [item for item in items if item.get_closest_marker("matrix")]
    items[:] = [item for item in items if not item.get_closest_marker("matrix")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def outside_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that tests start import the installed library, not the folder they stand in."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("outside"))
    yield
    os.chdir(before)


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


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Another process, in which Triton kernels run on CPU tensors."""
    running = Interpreter()
    yield running
    running.close()
