"""Reports of calls, totals over a run, the log, and the warning about a missing question."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import pickle
import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
import torch
from pairs import CHUNKS_CARRY_FEATURES, QUARTER, ModelPair, carried, make_pair
from tiny_models import ONE_IMAGE, RAGGED, TEXT_ONLY, TWO_IMAGES, Prompt, make_inputs, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from hf_token_compress import (
    CompressionReport,
    CompressionTotals,
    RelevanceMapper,
    Scorer,
    TokenCompressionConfig,
    compress,
    prepare_inputs,
)
from hf_token_compress.compression.identity import identify
from hf_token_compress.mapper import MapperConfig
from hf_token_compress.notices import warn_once

pytestmark = pytest.mark.core

LOGGER = "hf_token_compress"
QUESTION_BEFORE: Prompt = (6, (6, 8), "end", 2)


def report_of(model: Any, *prompts: Prompt, **options: Any) -> CompressionReport:
    """The report of a forward over these prompts."""
    report: CompressionReport = model(**make_inputs(prompts), **options).compression_report
    return report


def figures(text: str) -> list[float]:
    """The numbers in a text."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_the_summary_is_one_line_with_all_figures(pair: ModelPair) -> None:
    report = report_of(pair.compressed, ONE_IMAGE, TEXT_ONLY)
    text = report.summary()
    assert "\n" not in text
    times = [round(ms, 1) for ms in (report.vision_ms, report.scoring_ms, report.rewriting_ms)]
    assert figures(text) == [12, 48, 25, 2, *times]
    assert "scorer gated_fusion" in text
    assert text in repr(report)
    assert figures(repr(report.samples[0])) == [12, 48, 25]
    assert repr(report.samples[1]) == "SampleReport(no visual tokens)"


def test_the_dict_is_json_and_equals_the_tensors(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    report = report_of(pair.compressed, *RAGGED, token_compression=0.5)
    found = report.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert TokenCompressionConfig.from_dict(found["config"]) == report.config
    assert report.config == dataclasses.replace(QUARTER, retention_ratio=0.5)
    assert found["visual_tokens_before"] == sum(len(s.kept_visual) for s in report.samples)
    assert found["visual_tokens_after"] == sum(int(s.kept_visual.sum()) for s in report.samples)
    for number, (sample, own) in enumerate(zip(report.samples, found["samples"], strict=True)):
        assert own["prompt_tokens_before"] == int(inputs["attention_mask"][number].sum())
        assert own["prompt_tokens_after"] == len(sample.kept_indices)
        kept = set(sample.kept_indices.tolist())
        visuals = [(v.modality, v.positions.tolist()) for v in sample.visuals]
        assert own["visuals"] == [
            {
                "modality": modality,
                "visual_tokens_before": len(positions),
                "visual_tokens_after": len(kept.intersection(positions)),
            }
            for modality, positions in visuals
        ]
    assert pickle.loads(pickle.dumps(report)).to_dict() == found


class LastTokens(Scorer):
    """Prefers the end of the prompt."""

    def score(self, prompt: Any) -> torch.Tensor:
        return torch.arange(prompt.visual_mask.numel()).view_as(prompt.visual_mask).float()


def test_the_report_names_the_scorer_that_ran() -> None:
    for name in ("attention", "random", "uniform", "relevance"):
        model = compress(
            tiny_model(),
            TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0, scorer=name),
        )
        assert report_of(model, ONE_IMAGE).scorer == name
    compression = model.token_compression
    compression.use_mapper(RelevanceMapper(MapperConfig(identify(model), "grid", "image", {})))
    assert report_of(model, ONE_IMAGE).scorer == "mapper"
    compression.scorer = LastTokens()
    assert report_of(model, ONE_IMAGE).scorer == "<LastTokens>"


def test_the_report_has_the_setting_of_the_call(pair: ModelPair) -> None:
    model, ratios = pair.compressed, [0.5, 0.25, 1.0]
    report = report_of(model, ONE_IMAGE, TWO_IMAGES, TEXT_ONLY, token_compression=ratios)
    assert [sample.retention_ratio for sample in report.samples] == ratios
    assert [sample["retention_ratio"] for sample in report.to_dict()["samples"]] == ratios
    changes = {"scorer": "uniform", "retention_ratio": 0.125}
    report = report_of(model, ONE_IMAGE, token_compression=changes)
    assert report.config == dataclasses.replace(QUARTER, **changes)
    assert (report.scorer, report.samples[0].retention_ratio) == ("uniform", 0.125)


def test_a_call_that_compresses_nothing_leaves_no_report(pair: ModelPair) -> None:
    model, compression = pair.compressed, pair.compressed.token_compression
    shown, text = make_inputs([ONE_IMAGE]), make_inputs([TEXT_ONLY])

    def disabled() -> None:
        with compression.disabled():
            model(**shown)

    def next_turn(way: Callable[..., Any]) -> None:
        cache = model(**shown).past_key_values
        more = torch.tensor([[7, 8, 9]])
        whole = torch.cat([shown["input_ids"], more], dim=1)
        ids = whole if way == model.generate else more
        options = {"max_new_tokens": 2} if way == model.generate else {}
        mask = torch.ones_like(whole)
        way(input_ids=ids, attention_mask=mask, **carried(cache), **options)

    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: model(**text),
        "inner forward": lambda: model.base_model(**text),
        "generate": lambda: model.generate(**text, max_new_tokens=2),
        "prepare_inputs": lambda: prepare_inputs(model, **text),
        "stock forward": lambda: model(**shown, token_compression=False),
        "stock generate": lambda: model.generate(
            **shown, max_new_tokens=2, token_compression=False
        ),
        "stock prepare_inputs": lambda: prepare_inputs(model, **shown, token_compression=False),
        "disabled": disabled,
        "next turn of forward": lambda: next_turn(model),
        "next turn of generate": lambda: next_turn(model.generate),
    }
    for name, call in calls.items():
        report_of(model, ONE_IMAGE)
        assert compression.last is not None
        call()
        assert compression.last is None, name


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_onevision"])
def test_steps_of_a_compressed_call_leave_its_report(family: str) -> None:
    model = make_pair(QUARTER, family=family).compressed
    inputs = make_inputs([ONE_IMAGE], family=family)
    report = model(**inputs).compression_report
    assert model.token_compression.last is report
    cache = model(**inputs).past_key_values
    report = model.token_compression.last
    model(input_ids=torch.tensor([[7]]), **carried(cache))
    assert model.token_compression.last is report
    for options in (
        {},
        {"use_cache": False},
        *([{"prefill_chunk_size": 8}] if CHUNKS_CARRY_FEATURES else []),
        {"assistant_model": tiny_model(family)},
    ):
        seen = []

        def look(ids: Any, scores: Any, seen: list[Any] = seen) -> Any:
            seen.append(model.token_compression.last)
            return scores

        output = model.generate(
            **inputs,
            max_new_tokens=3,
            logits_processor=[look],
            return_dict_in_generate=True,
            **options,
        )
        assert seen
        assert {*map(id, seen)} == {id(output.compression_report)}, options
        assert model.token_compression.last is output.compression_report, options
    shorter = prepare_inputs(model, **inputs)
    report = model.token_compression.last
    model.generate(**shorter, max_new_tokens=2)
    model(**shorter)
    assert model.token_compression.last is report


def test_totals_are_the_sums_of_the_reports(pair: ModelPair) -> None:
    model, compression = pair.compressed, pair.compressed.token_compression
    with compression.record() as totals:
        reports = [report_of(model, *RAGGED), report_of(model, ONE_IMAGE, token_compression=0.5)]
        with compression.record() as inner:
            model.generate(**make_inputs([TWO_IMAGES]), max_new_tokens=3)
            reports.append(compression.last)
        prepare_inputs(model, **make_inputs([ONE_IMAGE]))
        reports.append(compression.last)
        # Not compressed, and so not counted.
        model(**make_inputs([TEXT_ONLY]))
        make_pair().compressed(**make_inputs([ONE_IMAGE]))
        with compression.disabled():
            model(**make_inputs([ONE_IMAGE]))
    report_of(model, ONE_IMAGE)
    assert (totals.calls, totals.samples) == (4, 7)
    assert (inner.calls, inner.samples) == (1, 1)
    for name in ("visual_tokens_before", "visual_tokens_after"):
        assert getattr(totals, name) == sum(getattr(report, name) for report in reports)
        assert getattr(inner, name) == getattr(reports[2], name)
    for name in ("vision_ms", "scoring_ms", "rewriting_ms"):
        assert getattr(totals, name) == pytest.approx(sum(getattr(r, name) for r in reports))
    assert pickle.loads(pickle.dumps(totals)) == totals
    found = totals.to_dict()
    assert json.loads(json.dumps(found)) == found
    kept = (totals.visual_tokens_after, totals.visual_tokens_before)
    assert figures(totals.summary())[:4] == [4, 7, *kept]
    assert CompressionTotals().summary().startswith("0 calls, 0 samples, no visual tokens, vision")


def test_totals_count_one_call_of_a_scorer_that_runs_the_model() -> None:
    config = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0, scorer="relevance")
    model = compress(tiny_model(), config)
    with model.token_compression.record() as totals:
        report_of(model, ONE_IMAGE)
    assert (totals.calls, totals.visual_tokens_before) == (1, 48)


def test_totals_hold_no_tensors(pair: ModelPair) -> None:
    compression = pair.compressed.token_compression
    with compression.record() as totals:
        report = report_of(pair.compressed, ONE_IMAGE)
        kept = weakref.ref(report.samples[0].kept_visual)
        compression.last = None
        del report
        assert kept() is None
    assert totals.calls == 1


def test_totals_follow_tasks_and_contexts_that_are_handed_over(pair: ModelPair) -> None:
    model = pair.compressed

    def ask(prompt: Prompt) -> int:
        with torch.no_grad():
            return report_of(model, prompt).visual_tokens_before

    async def asked() -> list[int]:
        prompts = (ONE_IMAGE, TWO_IMAGES, ONE_IMAGE)
        tasks = [asyncio.to_thread(ask, prompt) for prompt in prompts[:2]]
        return [*await asyncio.gather(*tasks), ask(prompts[2])]

    def in_thread(function: Callable[..., int], *args: Any) -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function, *args).result()

    with model.token_compression.record() as totals:
        before = asyncio.run(asked())
        before.append(in_thread(copy_context().run, ask, TWO_IMAGES))
        in_thread(ask, ONE_IMAGE)  # a thread of its own
    assert (totals.calls, totals.visual_tokens_before) == (4, sum(before))


class HostReads(TorchDispatchMode):
    """Counts values that are read from tensors, each of which waits for the device."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_every_call_logs_its_summary_and_reads_no_count_for_it(
    pair: ModelPair, caplog: pytest.LogCaptureFixture
) -> None:
    model, reads = pair.compressed, []
    model(**make_inputs([ONE_IMAGE]))  # computes what is kept for all calls
    for level in (logging.WARNING, logging.INFO):
        caplog.clear()
        with caplog.at_level(level, LOGGER), HostReads() as host:
            model(**make_inputs([ONE_IMAGE, TWO_IMAGES]))
        reads.append(host.count)
        logged = [record.getMessage() for record in caplog.records if record.name == LOGGER]
        summary = model.token_compression.last.summary()
        assert logged == ([summary] if level == logging.INFO else [])
    assert reads[0] == reads[1]
    with caplog.at_level(logging.INFO, LOGGER):
        caplog.clear()
        model.generate(**make_inputs([ONE_IMAGE]), max_new_tokens=3)
        model(**make_inputs([TEXT_ONLY]))
        assert len(caplog.records) == 1


@pytest.fixture
def unwarned() -> Iterator[None]:
    """As in a process that has not warned yet."""
    warn_once.cache_clear()
    yield
    warn_once.cache_clear()


@pytest.mark.usefixtures("unwarned")
def test_a_question_before_the_image_is_warned_of_once(pair: ModelPair) -> None:
    model = pair.compressed
    random = compress(tiny_model(), TokenCompressionConfig(scorer="random"))
    instruction_mask = make_inputs([QUESTION_BEFORE])["attention_mask"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report_of(model, *RAGGED)
        report_of(random, QUESTION_BEFORE)
        report_of(model, QUESTION_BEFORE, token_compression=1.0)
        report_of(model, QUESTION_BEFORE, instruction_mask=instruction_mask)
    with pytest.warns(UserWarning, match="put the question after the image"):
        report_of(model, ONE_IMAGE, QUESTION_BEFORE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report_of(model, QUESTION_BEFORE)
