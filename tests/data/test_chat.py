"""One encoder for one question and for a batch of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from hf_token_compress import load_tiny
from hf_token_compress.data.chat import batches_of_one_shape, encode, encode_samples, user_turn
from hf_token_compress.data.composed import clip_samples, scene_samples
from hf_token_compress.data.sample import Sample

IMAGES = scene_samples(["place", "colour"], 2)
CLIPS = clip_samples(["first", "last"], 1, frames=2)


@pytest.fixture(scope="module", params=["qwen2-vl", "llava-onevision", "vila"])
def processor(request: pytest.FixtureRequest) -> Any:
    return load_tiny(request.param)[1]


@pytest.mark.parametrize("samples", [IMAGES, CLIPS], ids=["images", "clips"])
def test_a_batch_is_padded_on_the_left(samples: list[Sample], processor: Any) -> None:
    longer = [
        Sample(s.modality, s.visuals, s.question + " please" * n) for n, s in enumerate(samples)
    ]
    together = encode_samples(processor, longer)
    for index, sample in enumerate(longer):
        alone = encode_samples(processor, [sample])["input_ids"][0]
        mask = together["attention_mask"][index].bool()
        assert not mask[: len(mask) - len(alone)].any()
        assert torch.equal(together["input_ids"][index][mask], alone)


def test_one_question_is_encoded_as_the_processor_does(processor: Any) -> None:
    content = [
        {"type": "image", "image": IMAGES[0].image},
        {"type": "video", "video": list(CLIPS[0].frames)},
        {"type": "text", "text": "What changed?"},
    ]
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        **{"tokenize": True, "add_generation_prompt": True, "return_dict": True},
        **{"return_tensors": "pt", "processor_kwargs": {"do_sample_frames": False}},
    )
    turn = user_turn("What changed?", [IMAGES[0].image], [CLIPS[0].frames])
    found = encode(processor, [turn])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name


def test_a_placeholder_in_a_question_is_refused(processor: Any) -> None:
    for token in (processor.image_token, processor.video_token):
        with pytest.raises(ValueError, match=re.escape(f"holds {token!r}")):
            encode(processor, [user_turn(f"Where is {token}?", [IMAGES[0].image])])


def test_all_given_frames_are_used_where_the_processor_would_sample() -> None:
    """VILA's samples sixteen frames of a longer video."""
    processor = load_tiny("vila")[1]
    (sample,) = clip_samples(["first"], 1, frames=4, frames_per_scene=5)
    assert encode_samples(processor, [sample])["pixel_values_videos"].shape[1] == 20


def test_batches_are_of_one_modality_and_one_length() -> None:
    short = Sample("video", (CLIPS[0].frames[:1],), "Where?")
    samples = [IMAGES[0], CLIPS[0], IMAGES[1], short, CLIPS[1]]
    assert batches_of_one_shape(samples) == [[0, 2], [1, 4], [3]]
