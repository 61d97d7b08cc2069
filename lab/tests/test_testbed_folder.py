"""The trained testbed, written as a folder, is the same model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from lab.testbed import load_testbed
from lab.testbed.__main__ import save_testbed
from lab.tests.testbed_models import need_parts

pytestmark = pytest.mark.testbed


def test_the_saved_folder_holds_the_testbed_to_the_bit(tmp_path):
    need_parts()
    save_testbed(tmp_path)
    assembled, processor = load_testbed()
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto")
    assert type(loaded) is type(assembled)
    expected, found = assembled.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name
    assert loaded.generation_config.eos_token_id == assembled.generation_config.eos_token_id
    reloaded = AutoProcessor.from_pretrained(tmp_path)
    assert reloaded.chat_template == processor.chat_template
