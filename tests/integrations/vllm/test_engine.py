"""The real engine keeps, and answers, what Transformers does with the same prompt and setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import pytest
import torch
from errors import one_sentence
from torch import Tensor
from vllm.multimodal.utils import group_and_batch_mm_kwargs
from vllm_runs import (
    CHUNK,
    LARGEST_STEP,
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

from hf_token_compress import Scorer, TokenCompressionConfig
from hf_token_compress.prompt import MultimodalPrompt

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


@pytest.mark.parametrize("step", [CHUNK, LARGEST_STEP])
def test_a_batch(served: Served, step: int) -> None:
    served.engine.llm.reset_prefix_cache()
    served.engine.steps.clear()
    served.engine.set_step(step)
    answers = served.answers(*served.asks)
    served.engine.set_step(CHUNK)
    longest = max(answer.prompt_length for answer in answers)
    assert longest > CHUNK
    # Chunked, or the whole batch at once.
    assert len([own for own in served.engine.steps if own.total_num_scheduled_tokens > 8]) == (
        -(-sum(answer.prompt_length for answer in answers) // step)
    )
    for answer, expected in zip(answers, served.expected, strict=True):
        assert answer.cached == 0
        served.assert_same(answer, expected)


@pytest.mark.parametrize("step", [CHUNK, LARGEST_STEP])
def test_one_prompt_after_another(served: Served, step: int) -> None:
    served.engine.llm.reset_prefix_cache()
    served.engine.set_step(step)
    for ask, expected in zip(served.asks, served.expected, strict=True):
        (answer,) = served.answers(ask)
        assert answer.cached == 0
        served.assert_same(answer, expected)
    served.engine.set_step(CHUNK)


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


def test_the_work_falls_with_the_ratio(served: Served) -> None:
    from vllm import SamplingParams

    core = served.engine.core
    pool = core.scheduler.kv_cache_manager.block_pool
    placeholders, blocks, scheduled = [], [], []
    for ratio in (1.0, 0.5, 0.25):
        served.engine.llm.reset_prefix_cache()
        served.engine.steps.clear()
        changes = {"retention_ratio": ratio, "min_visual_tokens": 0}
        expected = served.reference.answer(served.asks[1], changes)
        engine: Any = served.engine.llm.llm_engine
        free = pool.get_num_free_blocks()
        request = served.asks[1].request(served.reference.processor, changes)
        engine.add_request(f"{ratio}", request, SamplingParams(max_tokens=3, ignore_eos=True))
        most = 0
        while engine.has_unfinished_requests():
            engine.step()
            most = max(most, free - pool.get_num_free_blocks())
        assert pool.get_num_free_blocks() == free
        # What the scheduler itself counted, step by step: the prompt, then two more tokens.
        steps = [own.total_num_scheduled_tokens for own in served.engine.steps]
        counts = [own for own in steps if own > 0]
        assert sum(counts) == expected.prompt_length + 2
        assert len(counts) == -(-expected.prompt_length // CHUNK) + 2
        (feature,) = [
            own
            for step in served.engine.steps
            for new in step.scheduled_new_reqs
            for own in new.mm_features
        ]
        assert feature.mm_position.length == len(expected.kept[0])
        assert most == -(-(expected.prompt_length + 2) // 32)
        placeholders.append(feature.mm_position.length)
        scheduled.append(sum(counts))
        blocks.append(most)
    for own in (placeholders, scheduled, blocks):
        assert own == sorted(own, reverse=True)
        assert own[0] > own[-1]
    # Text stays as it is.
    texts = {own - kept for own, kept in zip(scheduled, placeholders, strict=True)}
    assert len(texts) == 1


def test_an_image_is_known_by_its_name_and_its_prompt(served: Served) -> None:
    processor, llm = served.reference.processor, served.engine.llm
    ask, other = served.asks[0], served.asks[1]
    llm.reset_prefix_cache()
    sent = [ask, Ask(other.question, images=ask.images), ask]
    # The second has another question about the image of that name.
    for own, cached in zip(sent, (False, False, True), strict=True):
        (answer,) = served.engine.answers([own], processor, uuids=["name"])
        served.assert_same(answer, served.reference.answer(own))
        assert (answer.cached > 0) == cached
    # The name alone is enough where the whole prompt was seen before, else not.
    request = ask.request(processor, uuids=["name"])
    request["multi_modal_data"] = {"image": [None]}
    (output,) = llm.generate([request], use_tqdm=False)
    assert len(output.prompt_token_ids) == served.expected[0].prompt_length
    request["prompt"] = Ask("Who is there?", images=ask.images).text(processor)
    with one_sentence(ValueError, "data is not provided"):
        llm.generate([request], use_tqdm=False)


def test_scores_that_are_no_numbers_end_no_engine(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class NoNumbers(Scorer):
        def score(self, prompt: MultimodalPrompt, *args: Any, **needed: Any) -> Tensor:
            return torch.full(prompt.visual_mask.shape, torch.nan)

    served.engine.llm.reset_prefix_cache()
    changes = {"retention_ratio": 0.3}
    with monkeypatch.context() as patch, caplog.at_level("ERROR", "hf_token_compress"):
        patch.setattr(served.engine.model, "_scorer", NoNumbers())
        (answer,) = served.answers(served.asks[1], changes=changes)
    assert "NaN or infinite" in caplog.text
    (kept,) = answer.kept
    steps = {end - start for start, end in pairwise(kept)}
    assert len(steps) <= 2
    assert max(steps) - min(steps) <= 1
    (answer,) = served.answers(ONE_IMAGE)
    served.assert_same(answer, served.expected[0])


def test_memory_is_measured_with_whole_images(served: Served) -> None:
    runner = served.engine.core.model_executor.driver_worker.worker.model_runner
    budget = runner.mm_budget
    encoded: list[int] = []
    keep = served.engine.model._keep

    def watched(features: Tensor, *of_prompt: Any) -> Tensor:
        encoded.append(len(features))
        return keep(features, *of_prompt)

    # One item of the largest size, and every image that a request may send fits.
    served.engine.model._keep = watched
    try:
        for modality, most in budget.mm_max_toks_per_item.items():
            items = budget.get_dummy_encoder_profile_inputs(modality)
            _, _, arguments = next(group_and_batch_mm_kwargs(items, device="cpu"))
            served.engine.model.embed_multimodal(**arguments)
            assert encoded
            assert set(encoded) == {most}
            encoded.clear()
    finally:
        del served.engine.model._keep


def test_bad_requests(served: Served) -> None:
    with one_sentence(ValueError, "cannot change position_ids"):
        served.answers(ONE_IMAGE, changes={"position_ids": "grid"})
    with one_sentence(ValueError, "A request cannot change"):
        served.answers(ONE_IMAGE, changes={"scorer": "random"})
    request = ONE_IMAGE.request(served.reference.processor)
    for prompt, words in (
        (request["prompt"].replace("_pad|>", "_pad|><|image_pad|>"), "placeholder"),
        (request["prompt"].partition("_pad|>")[0] + "_pad|>", "question"),
        # Some families have tokens around an image, which ask nothing.
        (request["prompt"].partition("\n")[2].partition("What")[0].rstrip("\n"), "question"),
    ):
        with one_sentence(ValueError, words):
            served.engine.llm.generate({**request, "prompt": prompt})
    (answer,) = served.answers(ONE_IMAGE)
    served.assert_same(answer, served.expected[0])
