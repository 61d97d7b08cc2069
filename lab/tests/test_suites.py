"""Transformers' tests on compressed models: what fails on these alone is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.suites.__main__ import main

TESTS = """
import sys
import unittest

from transformers import Qwen2VLForConditionalGeneration, Qwen2VLModel

sys.path.append({support!r})
from tiny_models import tiny_config


class Qwen2VLModelTest(unittest.TestCase):
    all_model_classes = (Qwen2VLModel, Qwen2VLForConditionalGeneration)

    def test_right(self):
        for model_class in self.all_model_classes:
            assert type(model_class(tiny_config())).__name__ == model_class.__name__

    def test_made(self):
        for model_class in self.all_model_classes:
            assert not hasattr(model_class(tiny_config()), "token_compression")

    def test_loaded(self):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            Qwen2VLForConditionalGeneration(tiny_config()).save_pretrained(folder)
            model = Qwen2VLForConditionalGeneration.from_pretrained(folder)
            assert not hasattr(model, "token_compression")

    def test_wrong_in_any_case(self):
        raise AssertionError
"""


def test_failures_of_compressed_models_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tests" / "models" / "qwen2_vl"
    folder.mkdir(parents=True)
    support = Path(__file__).parents[2] / "tests" / "support"
    text = TESTS.format(support=str(support))
    (folder / "test_modeling_qwen2_vl.py").write_text(text)
    arguments = [str(tmp_path), "--families", "qwen2_vl"]
    assert main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "qwen2_vl: 3 of 4 pass on stock models, 1 of these on compressed ones"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["test_loaded", "test_made"]
