"""What `--model_args` and the generation options of tasks say; lmms-eval is not needed here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from errors import one_sentence
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.integrations.lmms_eval.arguments import LoadingArguments, read_arguments
from hf_token_compress.integrations.lmms_eval.generation import (
    cut_answer,
    generate_options,
    generated_lengths,
    stop_strings,
)
from hf_token_compress.integrations.lmms_eval.loading import (
    find_device,
    limit_pixels,
    load,
)

GREEDY = {"max_new_tokens": 9, "do_sample": False}


def test_texts_of_the_command_line_are_read() -> None:
    arguments, changes = read_arguments(
        {
            "pretrained": "tiny-vila",
            "batch_size": "4",
            "retention_ratio": 1,
            "scorer": "random",
            "scorer_options": '{"seed": 1}',
        }
    )
    assert arguments == LoadingArguments("tiny-vila", batch_size=4)
    assert changes == {"retention_ratio": 1, "scorer": "random", "scorer_options": {"seed": 1}}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"retention": 0.5}, ValueError, ("model_args", "'retention'", "'retention_ratio'")),
        ({"pretrained": ""}, ValueError, ("names no model", "pretrained=")),
        ({"batch_size": "auto"}, ValueError, ("batch_size", "'auto'")),
        ({"max_pixels": 0}, ValueError, ("max_pixels", "at least 1")),
        ({"dtype": "float33"}, ValueError, ("dtype", "'bfloat16'", "'float33'")),
        ({"scorer_options": "{seed: 1}"}, ValueError, ("scorer_options", "JSON object")),
    ],
)
def test_arguments_that_cannot_be(
    given: dict[str, Any], kind: type[Exception], words: tuple[str, ...]
) -> None:
    with one_sentence(kind, *words):
        read_arguments({"pretrained": "tiny-vila", **given})


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({}, ValueError, ("token_compression", "retention_ratio=0.25")),
        ({"retention_ratio": 2}, ValueError, ("retention_ratio", "in (0, 1]")),
        ({"scorer": "magic"}, ValueError, ("'magic'", "attention")),
        ({"retention_ratio": 0.5, "max_pixels": 9}, ValueError, ("max_pixels", "leave it out")),
        ({"retention_ratio": 0.5, "pretrained": "no/no/no"}, OSError, ("no model 'no/no/no'",)),
    ],
)
def test_models_and_settings_that_cannot_be(
    given: dict[str, Any], kind: type[Exception], words: tuple[str, ...]
) -> None:
    arguments, changes = read_arguments({"pretrained": "tiny-llava-onevision", **given})
    with one_sentence(kind, *words):
        load(arguments, changes, torch.device("cpu"))


@pytest.mark.parametrize("video_processor", [Qwen2VLVideoProcessor, Qwen3VLVideoProcessor])
def test_pixels_limit_frames_only_where_frames_are_limited(video_processor: type[Any]) -> None:
    videos = video_processor()
    processor = SimpleNamespace(image_processor=Qwen2VLImageProcessor(), video_processor=videos)
    of_video, least = videos.size.longest_edge, processor.image_processor.size.shortest_edge
    limit_pixels(processor, {"max_pixels": 200_704})
    assert processor.image_processor.size.longest_edge == 200_704
    assert processor.image_processor.size.shortest_edge == least
    limited = video_processor is Qwen2VLVideoProcessor
    assert videos.size.longest_edge == (200_704 if limited else of_video)


def test_devices_that_cannot_be() -> None:
    with one_sentence(ValueError, "'gpu0'", "cuda:0"):
        find_device("gpu0")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_new_tokens": 9, "temperature": 0, "top_p": None, "until": ["\n"]}, GREEDY),
        ({"max_gen_toks": 9, "do_sample": True, "temperature": 0.0, "top_k": 5}, GREEDY),
        ({"max_new_tokens": 9, "do_sample": False, "temperature": 0.7}, GREEDY),
        ({"max_new_tokens": 9, "num_beams": 2}, {**GREEDY, "num_beams": 2}),
        (
            {"temperature": 0.7, "top_p": 0.9},
            {"max_new_tokens": 128, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
        ),
    ],
)
def test_generation_options(given: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(given)
    assert generate_options(given) == expected
    assert given == before  # lmms-eval finds cached answers by them


def test_options_of_other_models_are_named_and_left_out() -> None:
    with pytest.warns(UserWarning, match="'image_aspect_ratio'"):
        assert generate_options({"image_aspect_ratio": "original", "max_new_tokens": 9}) == GREEDY


def test_answers_end_at_the_first_stop_string() -> None:
    stops = stop_strings({"until": ["b", "", "c"]})
    assert cut_answer(" a c b", stops) == "a"
    assert cut_answer(" a ", stop_strings({"until": "\n\n"})) == "a"
    assert stop_strings({}) == []


def test_lengths_count_the_token_that_ends_an_answer() -> None:
    tokens = torch.tensor([[5, 6, 7, 8], [5, 2, 0, 0], [9, 0, 0, 0], [2, 2, 2, 2]])
    assert generated_lengths(tokens, [2, 9]) == [4, 2, 1, 1]
    assert generated_lengths(tokens, 7) == [3, 4, 4, 4]
    assert generated_lengths(tokens, None) == [4, 4, 4, 4]


def test_every_setting_of_token_compression_is_an_argument() -> None:
    given = dict(TokenCompressionConfig(retention_ratio=0.3, scorer="uniform"))
    given.pop("hf_token_compress_version")
    assert read_arguments({"pretrained": "tiny-vila", **given})[1] == given
