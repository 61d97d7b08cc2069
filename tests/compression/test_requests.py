"""Several requests to one model at the same time: switch and reports belong to the request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
import torch
from matrix import full_only
from pairs import ModelPair, answer, make_pair
from tiny_models import FAMILIES, ONE_IMAGE, RAGGED, TEXT_ONLY, TWO_IMAGES, make_inputs

from hf_token_compress import CompressionTotals

pytestmark = pytest.mark.core

ROUNDS = 6
each_family = pytest.mark.parametrize("family", FAMILIES)


def in_thread(function: Callable[[], Any]) -> Any:
    """The result of a call in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@each_family
def test_disabled_reaches_no_other_thread(family: str) -> None:
    pair = make_pair(family=family)
    inputs = make_inputs([ONE_IMAGE], family=family)
    with torch.no_grad():
        compressed, stock = pair.compressed(**inputs).logits, pair.stock(**inputs).logits

        def logits() -> torch.Tensor:
            with torch.no_grad():
                found: torch.Tensor = pair.compressed(**inputs).logits
            return found

        with pair.compressed.token_compression.disabled():
            assert torch.equal(in_thread(logits), compressed)
            assert torch.equal(logits(), stock)
            # A context that is handed over takes the switch along.
            assert torch.equal(in_thread(lambda: copy_context().run(logits)), compressed)
            context = copy_context()
            assert torch.equal(in_thread(lambda: context.run(logits)), stock)
        assert torch.equal(logits(), compressed)


def test_disabled_may_be_nested_and_ends_with_an_error(pair: ModelPair) -> None:
    compression = pair.compressed.token_compression
    with compression.disabled():
        with pytest.raises(KeyError), compression.disabled():
            raise KeyError
        assert not compression.enabled
    assert compression.enabled


def test_disabled_reaches_no_other_model() -> None:
    first, second = make_pair().compressed, make_pair().compressed
    with first.token_compression.disabled():
        assert not first.token_compression.enabled
        assert second.token_compression.enabled


def test_a_thread_sees_its_own_report(pair: ModelPair) -> None:
    compression = pair.compressed.token_compression
    pair.compressed(**make_inputs([ONE_IMAGE]))
    own = compression.last

    def other() -> Any:
        before = compression.last
        pair.compressed(**make_inputs([TWO_IMAGES]))
        return before, compression.last

    before, after = in_thread(other)
    assert before is None
    assert len(after.samples[0].visuals) == 2
    assert compression.last is own


def test_a_task_sees_its_own_report(pair: ModelPair) -> None:
    compression = pair.compressed.token_compression

    async def request(prompt: Any) -> int:
        pair.compressed(**make_inputs([prompt]))
        await asyncio.sleep(0)
        return len(compression.last.samples[0].visuals)

    async def requests() -> list[int]:
        return await asyncio.gather(*(request(p) for p in (ONE_IMAGE, TWO_IMAGES, ONE_IMAGE)))

    assert asyncio.run(requests()) == [1, 2, 1]


def test_the_report_is_handed_back_with_the_output(pair: ModelPair) -> None:
    compression = pair.compressed.token_compression
    for prompt, images in ((ONE_IMAGE, 1), (TWO_IMAGES, 2)):
        inputs = make_inputs([prompt])
        generate = partial(pair.compressed.generate, max_new_tokens=2, return_dict_in_generate=True)
        for call in (pair.compressed, generate):
            output = call(**inputs)
            assert output.compression_report is compression.last
            assert len(output.compression_report.samples[0].visuals) == images
            assert "compression_report" not in output
    forgotten = pair.compressed(**inputs)
    compression.last = None
    assert forgotten.compression_report is not None
    assert compression.last is None


@each_family
def test_threads_with_other_prompts_and_ratios(family: str) -> None:
    """Each answers as it would alone, while one compares with the whole prompt."""
    pair = make_pair(family=family)
    model = pair.compressed
    requests = [
        (make_inputs([ONE_IMAGE], family=family), {}),
        (make_inputs([TWO_IMAGES], family=family), {"token_compression": 0.5}),
        (make_inputs([TWO_IMAGES, ONE_IMAGE], family=family), {"token_compression": 0.125}),
    ]

    def ask(number: int) -> tuple[torch.Tensor, list[int]]:
        inputs, options = requests[number]
        out = model.generate(**inputs, **options, max_new_tokens=4, eos_token_id=None)
        kept = [sample.visual_tokens_after for sample in model.token_compression.last.samples]
        return answer(out, inputs), kept

    def ask_stock() -> torch.Tensor:
        with model.token_compression.disabled():
            out = model.generate(**requests[0][0], max_new_tokens=4, eos_token_id=None)
        return answer(out, requests[0][0])

    expected = [ask(number) for number in range(len(requests))]
    assert len({tuple(kept) for _, kept in expected}) == len(requests)
    whole = ask_stock()
    start = threading.Barrier(len(requests) + 1)

    def again(call: Callable[[], Any]) -> list[Any]:
        start.wait()
        return [call() for _ in range(ROUNDS)]

    with ThreadPoolExecutor(len(requests) + 1) as pool:
        running = [pool.submit(again, lambda n=n: ask(n)) for n in range(len(requests))]
        beside = pool.submit(again, ask_stock)
        for number, done in enumerate(running):
            for tokens, kept in done.result():
                assert torch.equal(tokens, expected[number][0])
                assert kept == expected[number][1]
        for tokens in beside.result():
            assert torch.equal(tokens, whole)


@pytest.mark.parametrize("calls", [64, full_only(2000)])
def test_every_thread_gets_its_own_answers_reports_and_totals(calls: int) -> None:
    """Other prompts, ratios and scoring depths in each of eight threads."""
    model = make_pair().compressed
    prompts = ([ONE_IMAGE], [TWO_IMAGES], [TWO_IMAGES, ONE_IMAGE], [TEXT_ONLY], RAGGED)
    settings = [
        {
            "retention_ratio": ratio,
            "scorer": "attention",
            "scorer_options": {"scoring_depth": depth},
        }
        for ratio in (0.125, 0.5, 1.0)
        for depth in (0, 2)
    ]
    requests = [
        {**make_inputs(prompt), "token_compression": setting, "max_new_tokens": 2}
        for prompt in prompts
        for setting in settings
    ]

    def ask(request: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        out = model.generate(**request, return_dict_in_generate=True, output_logits=True)
        report = getattr(out, "compression_report", None)
        reported = [] if report is None else [report.config]
        for sample in () if report is None else report.samples:
            reported += [sample.kept_indices.tolist(), sample.kept_visual.tolist()]
            reported += [None if sample.scores is None else sample.scores.tolist()]
        return [out.sequences.tolist(), torch.stack(out.logits).tolist()], reported

    def ask_all(chosen: list[int], start: threading.Barrier) -> tuple[list[Any], Any]:
        with model.token_compression.record() as own:
            start.wait()
            return [ask(requests[number]) for number in chosen], own

    expected, costs = [], []
    for request in requests:
        with model.token_compression.record() as totals:
            expected.append(ask(request))
        costs.append(counts(totals))
    order = torch.randint(len(requests), (8, calls // 8)).tolist()
    start = threading.Barrier(len(order))
    with ThreadPoolExecutor(len(order)) as pool, model.token_compression.record() as totals:
        running = [pool.submit(copy_context().run, ask_all, chosen, start) for chosen in order]
        for chosen, done in zip(order, running, strict=True):
            answers, own = done.result()
            assert answers == [expected[number] for number in chosen]
            assert counts(own) == sum_of(costs, chosen)
    assert counts(totals) == sum_of(costs, [number for chosen in order for number in chosen])


def counts(totals: CompressionTotals) -> tuple[int, ...]:
    """Calls, samples and tokens, without times."""
    return tuple(value for value in totals.to_dict().values() if isinstance(value, int))


def sum_of(costs: list[tuple[int, ...]], chosen: list[int]) -> tuple[int, ...]:
    """What the requests with these numbers cost together."""
    return tuple(map(sum, zip(*(costs[number] for number in chosen), strict=True)))
