"""Requests that are preempted, and images that are encoded again, get the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm_runs import Ask, Engine, Reference, assert_same, checkpoint, image, random_mappers

from hf_token_compress import TokenCompressionConfig

pytestmark = pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op`:FutureWarning")

NEW_TOKENS = 40
ASKS = [Ask(f"What is left of dog {seed}?", images=(image(seed),)) for seed in range(6)]
TWO_IMAGES = Ask("What is in both of them?", images=(image(0), image(1)))


@pytest.fixture(scope="module", params=["random-qwen2_5-vl", "random-llava-onevision"])
def pressed(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    """An engine with room for hardly two requests, and its reference."""
    folder = checkpoint(request.param, tmp_path_factory.mktemp("model"))
    if request.param == "random-qwen2_5-vl":
        architecture = "CompressedQwen25VLForConditionalGeneration"
        config = TokenCompressionConfig(retention_ratio=0.4)
    else:
        architecture = "CompressedLlavaOnevisionForConditionalGeneration"
        mappers = random_mappers(folder, tmp_path_factory.mktemp("mapper"))
        config = TokenCompressionConfig(mapper=str(mappers), position_ids="compact")
    engine = Engine(folder, architecture, config, num_gpu_blocks_override=9, max_model_len=256)
    # Its size follows from the largest video, which all of these images together do not reach.
    engine.core.scheduler.encoder_cache_manager = EncoderCacheManager(cache_size=80)
    yield engine, Reference(folder, config)
    engine.llm.llm_engine.engine_core.shutdown()


def test_preempted_requests(pressed: tuple[Engine, Reference]) -> None:
    engine, reference = pressed
    engine.steps.clear()
    answers = engine.answers(ASKS, reference.processor, new_tokens=NEW_TOKENS)
    resumed = [own for step in engine.steps for own in step.scheduled_cached_reqs.resumed_req_ids]
    assert resumed
    for ask, answer in zip(ASKS, answers, strict=True):
        assert_same(answer, reference.answer(ask, new_tokens=NEW_TOKENS), 1e-5)


def test_evicted_images(pressed: tuple[Engine, Reference]) -> None:
    engine, reference = pressed
    manager = engine.core.scheduler.encoder_cache_manager
    engine.steps.clear()
    for ask in (*ASKS, TWO_IMAGES, *ASKS[::-1]) * 2:
        engine.llm.reset_prefix_cache()
        (answer,) = engine.answers([ask], reference.processor)
        assert_same(answer, reference.answer(ask), 1e-5)
        assert manager.num_free_slots >= 0
    assert any(step.free_encoder_mm_hashes for step in engine.steps)
