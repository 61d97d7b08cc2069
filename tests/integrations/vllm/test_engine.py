"""The real engine keeps, and answers, what Transformers does with the same prompt and setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
from errors import one_sentence
from vllm_runs import (
    Answer,
    Ask,
    Engine,
    Reference,
    assert_same,
    checkpoint,
    image,
    largest_deviation,
    random_mappers,
    video,
)

from hf_token_compress import TokenCompressionConfig

pytestmark = pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op`:FutureWarning")

ONE_IMAGE = Ask("What is left of the dog?", images=(image(0),))
ASKS = (
    ONE_IMAGE,
    Ask("Which colour is the guitar?", images=(image(1, 3, 2),)),
    Ask("How many fish are there?", images=(image(2, 2, 3),)),
    Ask("What is below the fish?", videos=(video(0),)),
    Ask("What is in both of them?", images=(image(3), image(4, 3, 2))),
    Ask("Are they the same?", images=(image(3), image(3))),
    Ask("What is in both of them?", images=(image(5),), videos=(video(1),)),
)
LLAVA_ONEVISION = "CompressedLlavaOnevisionForConditionalGeneration"
RANDOM = "mappers with random weights"
SERVED = {
    "random-llava-onevision": (
        LLAVA_ONEVISION,
        TokenCompressionConfig(mapper=RANDOM, position_ids="compact"),
    ),
    "random-qwen2-vl": (
        "CompressedQwen2VLForConditionalGeneration",
        TokenCompressionConfig(scorer="attention", selection="diverse"),
    ),
    "random-qwen2_5-vl": (
        "CompressedQwen25VLForConditionalGeneration",
        TokenCompressionConfig(scorer="gated_fusion", retention_ratio=0.4),
    ),
    "tiny-llava-onevision": (
        LLAVA_ONEVISION,
        TokenCompressionConfig(mapper="tiny-llava-onevision", position_ids="compact"),
    ),
}


@dataclass
class Served:
    engine: Engine
    reference: Reference
    trained: bool

    def answers(self, *asks: Ask, changes: Any = None) -> list[Answer]:
        return self.engine.answers(asks, self.reference.processor, changes)

    @cached_property
    def asks(self) -> tuple[Ask, ...]:
        # This processor asks for the time between frames.
        timed = self.reference.model.config.model_type == "qwen2_5_vl"
        return tuple(replace(ask, fps=2.0) for ask in ASKS) if timed else ASKS

    @cached_property
    def expected(self) -> list[Answer]:
        return [self.reference.answer(ask) for ask in self.asks]

    @cached_property
    def whole_prompts_deviate(self) -> float:
        """How much the two differ by where nothing is compressed."""
        answers = self.answers(*self.asks, changes=1.0)
        whole = [self.reference.answer(ask, 1.0) for ask in self.asks]
        return max(map(largest_deviation, answers, whole))

    @cached_property
    def tolerance(self) -> float:
        # The trained tiny models amplify rounding, which random weights hardly do.
        return 1e-5 + (2 * self.whole_prompts_deviate if self.trained else 0)

    def assert_same(self, answer: Answer, expected: Answer) -> None:
        assert_same(answer, expected, self.tolerance)


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Served]:
    architecture, config = SERVED[request.param]
    folder = checkpoint(request.param, tmp_path_factory.mktemp("model"))
    if config.mapper == RANDOM:
        mappers = random_mappers(folder, tmp_path_factory.mktemp("mapper"))
        config = replace(config, mapper=str(mappers))
    engine = Engine(folder, architecture, config)
    yield Served(engine, Reference(folder, config), trained=request.param.startswith("tiny"))
    engine.llm.llm_engine.engine_core.shutdown()


def test_rounding_alone(served: Served) -> None:
    assert served.whole_prompts_deviate <= (5e-4 if served.trained else 1e-5)
    # Against which other tokens would make a difference.
    whole = served.reference.answer(served.asks[0], 1.0)
    assert largest_deviation(served.expected[0], whole) > 100 * served.tolerance


def test_a_batch_in_chunks(served: Served) -> None:
    answers = served.answers(*served.asks)
    assert max(answer.prompt_length for answer in answers) > 64  # tokens of a chunk
    for answer, expected in zip(answers, served.expected, strict=True):
        served.assert_same(answer, expected)


def test_one_prompt_after_another(served: Served) -> None:
    served.engine.llm.reset_prefix_cache()
    for ask, expected in zip(served.asks, served.expected, strict=True):
        (answer,) = served.answers(ask)
        assert answer.cached == 0
        served.assert_same(answer, expected)


def test_prefix_cache(served: Served) -> None:
    again = Ask("Which colour is the guitar?", images=ONE_IMAGE.images)
    served.engine.llm.reset_prefix_cache()
    (first,) = served.answers(ONE_IMAGE)
    (other,) = served.answers(again)
    (repeated,) = served.answers(ONE_IMAGE)
    # Another question shares nothing with the first; the same one shares whole blocks.
    assert other.cached == 0
    served.assert_same(other, served.reference.answer(again))
    assert repeated.cached == first.prompt_length // 32 * 32 > 0
    served.assert_same(repeated, served.expected[0])


def test_another_ratio_for_a_request(served: Served) -> None:
    changes = {"retention_ratio": 0.2, "min_visual_tokens": 0}
    (answer,) = served.answers(ONE_IMAGE, changes=changes)
    served.assert_same(answer, served.reference.answer(ONE_IMAGE, changes))
    assert answer.prompt_length < served.expected[0].prompt_length


def test_blocks_fall_with_the_ratio(served: Served) -> None:
    from vllm import SamplingParams

    processor = served.reference.processor
    engine: Any = served.engine.llm.llm_engine
    pool = engine.engine_core.engine_core.scheduler.kv_cache_manager.block_pool
    used = {}
    for ratio in (1.0, 0.25):
        served.engine.llm.reset_prefix_cache()
        free = pool.get_num_free_blocks()
        request = ASKS[1].request(processor, {"retention_ratio": ratio, "min_visual_tokens": 0})
        engine.add_request(f"{ratio}", request, SamplingParams(max_tokens=3, ignore_eos=True))
        most = 0
        while engine.has_unfinished_requests():
            engine.step()
            most = max(most, free - pool.get_num_free_blocks())
        used[ratio] = most
        length = served.reference.answer(
            ASKS[1], {"retention_ratio": ratio, "min_visual_tokens": 0}
        ).prompt_length
        assert most <= -(-(length + 3) // 32)
        assert pool.get_num_free_blocks() == free
    assert used[0.25] < used[1.0]


def test_bad_requests(served: Served) -> None:
    with one_sentence(ValueError, "cannot change position_ids"):
        served.answers(ONE_IMAGE, changes={"position_ids": "grid"})
    with one_sentence(ValueError, "A request cannot change"):
        served.answers(ONE_IMAGE, changes={"scorer": "random"})
    request = ONE_IMAGE.request(served.reference.processor)
    for prompt, words in (
        (request["prompt"].replace("_pad|>", "_pad|><|image_pad|>"), "placeholder"),
        (request["prompt"].partition("_pad|>")[0] + "_pad|>", "question"),
    ):
        with one_sentence(ValueError, words):
            served.engine.llm.generate({**request, "prompt": prompt})
    (answer,) = served.answers(ONE_IMAGE)
    served.assert_same(answer, served.expected[0])
