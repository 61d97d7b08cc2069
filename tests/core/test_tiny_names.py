"""How the tiny models are named in Python and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from errors import one_sentence

from hf_token_compress.tiny import load_tiny, own_mapper, resolve_model


@pytest.mark.parametrize("name", ["qwen2-vl-video", "tiny-qwen2-vl-video", "qwen2_vl_video"])
def test_every_spelling_names_the_same_model(name: str) -> None:
    assert Path(resolve_model(name)).name == "qwen2_vl_video"
    assert own_mapper(name) == "tiny-qwen2-vl-video"


def test_a_folder_of_the_same_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vila").mkdir()
    assert resolve_model("vila") == "vila"
    assert own_mapper("vila") is None
    assert resolve_model("someone/vila") == "someone/vila"


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with one_sentence(ValueError, "'gemma'", "llava-onevision"):
        load_tiny("tiny-gemma")
