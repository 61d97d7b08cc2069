"""`token_compression=` of one call, and changes of the model's own setting."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import full_only
from pairs import QUARTER, ModelPair, answer, assert_same, carried, make_pair
from tiny_models import FAMILIES, ONE_IMAGE, TEXT_ONLY, TWO_IMAGES, make_inputs, tiny_model
from transformers import DynamicCache

from hf_token_compress import (
    Scorer,
    TokenCompressionConfig,
    compress,
    prepare_inputs,
    register_scorer,
)
from hf_token_compress.compression.identity import identify
from hf_token_compress.mapper import MapperConfig, RelevanceMapper
from hf_token_compress.scorers import registry as scorer_registry

pytestmark = pytest.mark.core

each_family = pytest.mark.parametrize("family", FAMILIES)
PROMPTS = [ONE_IMAGE, TWO_IMAGES, ONE_IMAGE]
RATIOS = [0.25, 0.5, 1.0]
CHANGES: list[Any] = [
    0.5,
    {"max_visual_tokens": 5},
    {"retention_ratio": 0.5, "position_ids": "compact"},
    {"scorer": "uniform"},
    {"scorer": "attention", "scorer_options": {"scoring_depth": 1}},
    TokenCompressionConfig(retention_ratio=0.5, min_visual_tokens=0, scorer="random"),
]


def ask(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    options = {"max_new_tokens": 3, "eos_token_id": None, "do_sample": False, **options}
    return model.generate(**inputs, **options)


def kept(model: Any) -> list[list[int]]:
    return [sample.kept_indices.tolist() for sample in model.token_compression.last.samples]


def mapper_of(model: Any, seed: int = 0) -> RelevanceMapper:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RelevanceMapper(MapperConfig(identify(model))).eval()


@each_family
def test_a_call_runs_as_a_model_with_its_setting(family: str) -> None:
    stock, model = make_pair(family=family)
    inputs = make_inputs(PROMPTS, family=family)
    plain, seen = ask(model, inputs), set()
    for change in CHANGES:
        other = compress(copy.deepcopy(stock), QUARTER.changed(change))
        expected = ask(other, inputs)
        assert torch.equal(ask(model, inputs, token_compression=change), expected)
        assert kept(model) == kept(other)
        seen.add(str(kept(model)))
        prepared = prepare_inputs(model, **inputs, token_compression=change)
        assert torch.equal(model(**prepared).logits, other(**inputs).logits)
        assert model.token_compression.config == QUARTER
    # Two of them keep the same tokens and differ in their position ids.
    assert len(seen) == len(CHANGES) - 1
    assert torch.equal(ask(model, inputs), plain)


@each_family
def test_false_runs_the_stock_model(family: str) -> None:
    stock, model = make_pair(family=family)
    inputs = make_inputs(PROMPTS, family=family)
    with torch.no_grad():
        expected = stock(**inputs).logits
        assert torch.equal(model(**inputs, token_compression=False).logits, expected)
        states = stock.base_model(**inputs)[0]
        assert torch.equal(model.base_model(**inputs, token_compression=False)[0], states)
    assert torch.equal(ask(model, inputs, token_compression=False), ask(stock, inputs))
    prepared = prepare_inputs(model, **inputs, token_compression=False)
    assert all(prepared[name] is value for name, value in inputs.items())
    assert model.token_compression.last is None
    assert model.token_compression.enabled


def test_the_next_turn_continues_what_a_call_kept(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    other = compress(copy.deepcopy(pair.stock), 0.5)
    sequences = []
    for model, options in ((pair.compressed, {"token_compression": 0.5}), (other, {})):
        cache = DynamicCache()
        ids = ask(model, inputs, **options, **carried(cache))
        ids = torch.cat([ids, torch.tensor([[5, 6, 7]])], dim=1)
        sequences.append(ask(model, {"input_ids": ids}, **carried(cache)))
    assert torch.equal(*sequences)


# A ratio for each sample


@each_family
def test_each_sample_at_its_ratio_is_as_alone(family: str) -> None:
    model = make_pair(family=family).compressed
    batch = make_inputs(PROMPTS, family=family)
    answers = answer(ask(model, batch, token_compression=RATIOS), batch)
    samples = model.token_compression.last.samples
    prepared = prepare_inputs(
        model, **batch, token_compression={"retention_ratio": tuple(RATIOS), "scorer": "random"}
    )
    for number, (prompt, ratio) in enumerate(zip(PROMPTS, RATIOS, strict=True)):
        inputs = make_inputs([prompt], family=family)
        alone = answer(ask(model, inputs, token_compression=ratio), inputs)
        assert torch.equal(answers[number], alone[0])
        (own,) = model.token_compression.last.samples
        assert torch.equal(samples[number].kept_visual, own.kept_visual)
        assert own.visual_tokens_after == round(ratio * own.visual_tokens_before)
        change = {"retention_ratio": ratio, "scorer": "random"}
        shorter = prepare_inputs(model, **inputs, token_compression=change)["input_ids"][0]
        assert torch.equal(prepared["input_ids"][number, -len(shorter) :], shorter)


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2, "num_beams": 2}])
def test_ratios_count_the_callers_samples(options: dict[str, Any], pair: ModelPair) -> None:
    batch = make_inputs([ONE_IMAGE, ONE_IMAGE])
    found = answer(ask(pair.compressed, batch, token_compression=[0.25, 0.5], **options), batch)
    for rows, ratio in zip(found.chunk(2), (0.25, 0.5), strict=True):
        inputs = make_inputs([ONE_IMAGE])
        own = ask(pair.compressed, inputs, token_compression=ratio, **options)
        assert torch.equal(rows, answer(own, inputs))


@pytest.mark.parametrize("ratio", ["0.5", {"max_visual_tokens": 3}, QUARTER, None])
def test_a_list_holds_ratios_only(ratio: Any, pair: ModelPair) -> None:
    with one_sentence(TypeError, "retention_ratio must be a number"):
        pair.compressed(**make_inputs([ONE_IMAGE]), token_compression=[ratio])


@pytest.mark.parametrize("value", [True, 7, [2.0], {"retention": 0.5}])
def test_a_wrong_setting_is_refused_for_text_too(value: Any, pair: ModelPair) -> None:
    inputs = make_inputs([TEXT_ONLY])
    for call in (
        pair.compressed,
        pair.compressed.generate,
        partial(prepare_inputs, pair.compressed),
    ):
        with pytest.raises((TypeError, ValueError), match=r"token_compression|retention_ratio"):
            call(**inputs, token_compression=value)


def test_a_list_of_another_length_is_refused_for_text_too(pair: ModelPair) -> None:
    model = pair.compressed
    for inputs in (make_inputs([TEXT_ONLY] * 2), make_inputs([ONE_IMAGE, TEXT_ONLY])):
        for call in (model, model.generate, partial(prepare_inputs, model)):
            with one_sentence(ValueError, "3 retention ratios", "batch of 2"):
                call(**inputs, token_compression=RATIOS)
    embeddings = model.get_input_embeddings()(make_inputs([TEXT_ONLY])["input_ids"])
    with one_sentence(ValueError, "batch of 1"):
        model(inputs_embeds=embeddings, token_compression=[0.25, 0.5])


# Scorers and mappers of a call


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to the scorer "counted"; registrations of a test end with it."""
    monkeypatch.setattr(scorer_registry.SCORERS, "registered", {})
    events = []

    @register_scorer("counted")
    class Counted(Scorer):
        def __init__(self, name: str = "", depth: int = 0) -> None:
            events.append(f"built {name}")
            self.name, self.scoring_depth = name, depth

        def check_model(self, identify: Callable[[], Any]) -> None:
            if self.name == "refused":
                raise ValueError("This scorer does not fit.")
            events.append(f"checked {self.name}")

        def score(self, prompt: Any) -> torch.Tensor:
            return torch.arange(prompt.visual_mask.shape[1]).expand(len(prompt.visuals), -1).float()

    return events


def test_a_scorer_of_calls_is_built_and_checked_once(pair: ModelPair, counted: list[str]) -> None:
    inputs = make_inputs([ONE_IMAGE])

    def call(name: str, **budget: Any) -> None:
        options = {"scorer": "counted", "scorer_options": {"name": name}, **budget}
        pair.compressed(**inputs, token_compression=options)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, ["first", "second"] * 4))
    call("first", retention_ratio=0.5)
    assert sorted(counted) == ["built first", "built second", "checked first", "checked second"]
    # Only the last few are remembered.
    for number in range(8):
        call(str(number))
        call("first")
    assert counted.count("built first") == 1
    call("second")
    assert counted.count("built second") == 2
    copied = copy.deepcopy(pair.compressed)
    copied(**inputs, token_compression={"scorer": "counted", "scorer_options": {"name": "second"}})
    assert counted.count("checked second") == 3


def test_a_scorer_that_does_not_fit_is_refused_at_every_call(
    pair: ModelPair, counted: list[str]
) -> None:
    inputs = make_inputs([ONE_IMAGE])
    for options in ({"name": "refused"}, {"depth": 9}):
        for _ in range(2):
            with pytest.raises(ValueError, match=r"does not fit|scoring_depth"):
                pair.compressed(
                    **inputs, token_compression={"scorer": "counted", "scorer_options": options}
                )
    assert counted.count("built refused") == 2


def test_a_scorer_that_is_being_built_holds_up_no_other_call(
    pair: ModelPair, counted: list[str]
) -> None:
    inputs = make_inputs([ONE_IMAGE])
    pool = ThreadPoolExecutor(1)

    @register_scorer("slow")
    class Slow(Scorer):
        def __init__(self) -> None:
            change = {"scorer": "uniform"}
            # The time only ends a deadlock.
            pool.submit(pair.compressed, **inputs, token_compression=change).result(timeout=60)

        def score(self, prompt: Any) -> torch.Tensor:
            return prompt.visual_mask.float()

    with pool:
        report = pair.compressed(**inputs, token_compression={"scorer": "slow"}).compression_report
    assert report.scorer == "slow"


def test_what_is_only_in_memory_stays_with_its_model(pair: ModelPair) -> None:
    inputs, own = make_inputs([ONE_IMAGE]), pair.compressed.token_compression
    twin = compress(copy.deepcopy(pair.stock), QUARTER)
    other = twin.token_compression

    class Middle(Scorer):
        def score(self, prompt: Any) -> torch.Tensor:
            return prompt.visual_mask.float()

    for name in ("<in memory>", "<Middle>"):
        for seed, compression in enumerate((own, other)):
            if name == "<Middle>":
                compression.scorer = Middle()
            else:
                compression.use_mapper(mapper_of(pair.stock, seed))
        expected = pair.compressed(**inputs).logits
        logits = pair.compressed(**inputs, token_compression=own.config).logits
        assert torch.equal(logits, expected)
        for prompt in (ONE_IMAGE, TEXT_ONLY):
            with one_sentence(ValueError, name, "only in memory"):
                pair.compressed(**make_inputs([prompt]), token_compression=other.config)


def test_a_mapper_of_a_call(pair: ModelPair, tmp_path: Path) -> None:
    inputs = make_inputs([ONE_IMAGE])
    mapper_of(pair.stock).save_pretrained(tmp_path / "mapper")
    named = str(tmp_path / "mapper")
    other = compress(copy.deepcopy(pair.stock), {**QUARTER, "mapper": named})
    expected = other(**inputs).logits
    for value in (named, {"mapper": named}):
        assert torch.equal(pair.compressed(**inputs, token_compression=value).logits, expected)
    untrained = other(**inputs, token_compression={"scorer": "gated_fusion"}).logits
    assert torch.equal(untrained, pair.compressed(**inputs).logits)
    mapper_of(tiny_model(seed=5)).save_pretrained(tmp_path / "other")
    with one_sentence(ValueError, "other weights"):
        pair.compressed(**inputs, token_compression=str(tmp_path / "other"))


@pytest.mark.parametrize(
    "family", [full_only(*FAMILIES[:1]), FAMILIES[1], full_only(*FAMILIES[2:])]
)
def test_threads_with_other_settings_and_depths(family: str) -> None:
    model = make_pair(family=family).compressed
    inputs = make_inputs([ONE_IMAGE, TWO_IMAGES], family=family)
    deeper = {"scorer": "attention", "scorer_options": {"scoring_depth": 2}}
    changes = [None, False, [0.5, 0.125], deeper, *CHANGES[3:5]]

    def call(change: Any) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = model(**inputs, token_compression=change).logits
        return logits

    expected = [call(change) for change in changes]
    assert len({str(logits) for logits in expected}) == len(changes)
    start = threading.Barrier(len(changes))

    def again(change: Any) -> list[torch.Tensor]:
        start.wait()
        return [call(change) for _ in range(3)]

    with ThreadPoolExecutor(len(changes)) as pool:
        for found, logits in zip(pool.map(again, changes), expected, strict=True):
            assert all(torch.equal(own, logits) for own in found)


def test_settings_of_calls_are_not_saved(pair: ModelPair, tmp_path: Path) -> None:
    for change in CHANGES:
        pair.compressed(**make_inputs([ONE_IMAGE]), token_compression=change)
    pair.compressed.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["token_compression"] == QUARTER


# The model's own setting


def test_an_update_is_as_compressing_anew(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    model, setting = pair.compressed, QUARTER
    for changes in (
        {"retention_ratio": 0.5},
        {"scorer": "attention", "scorer_options": {"scoring_depth": 1}, "max_visual_tokens": 5},
        {"scorer": "random"},
    ):
        setting = setting.changed(changes)
        model.token_compression.update(**changes)
        assert model.token_compression.config == setting
        assert repr(setting) in repr(model.token_compression)
        other = compress(copy.deepcopy(pair.stock), setting)
        assert torch.equal(model(**inputs).logits, other(**inputs).logits)
        assert torch.equal(model.base_model(**inputs)[0], other.base_model(**inputs)[0])


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"retention_ratio": 2}, ValueError, "retention_ratio"),
        ({"retention_ratio": [0.5]}, TypeError, "retention_ratio"),
        ({"retention_ration": 0.5}, ValueError, "'retention_ratio'"),
        (
            {"scorer": "attention", "scorer_options": {"scoring_depth": 9}},
            ValueError,
            "scoring_depth",
        ),
    ],
)
def test_a_refused_update_changes_nothing(
    changes: Any, kind: type[Exception], word: str, pair: ModelPair
) -> None:
    inputs = make_inputs([ONE_IMAGE])
    expected = pair.compressed(**inputs).logits
    with one_sentence(kind, word):
        pair.compressed.token_compression.update(**changes)
    assert pair.compressed.token_compression.config == QUARTER
    assert torch.equal(pair.compressed(**inputs).logits, expected)


@pytest.mark.parametrize("name", ["config", "retention_ratio", "mapper"])
def test_settings_cannot_be_assigned(name: str, pair: ModelPair) -> None:
    with one_sentence(AttributeError, name, "token_compression.update"):
        setattr(pair.compressed.token_compression, name, QUARTER)
    assert pair.compressed.token_compression.config == QUARTER


def test_names_are_no_scorers_or_mappers(pair: ModelPair) -> None:
    compression = pair.compressed.token_compression
    with one_sentence(TypeError, "'uniform'", "update(scorer=…)"):
        compression.scorer = "uniform"
    with one_sentence(TypeError, "str", "update(mapper=…)"):
        compression.use_mapper("tiny-qwen2-vl")
    assert compression.config == QUARTER


def test_an_update_reads_the_mapper_that_it_names_again(pair: ModelPair, tmp_path: Path) -> None:
    inputs = make_inputs([ONE_IMAGE])
    scores = []
    for seed in (0, 1):
        mapper_of(pair.stock, seed).save_pretrained(tmp_path / "mapper")
        pair.compressed.token_compression.update(mapper=str(tmp_path / "mapper"))
        scores.append(pair.compressed(**inputs).compression_report.samples[0].scores)
    assert not torch.equal(*scores)


def test_the_repr_names_the_mapper_in_use(pair: ModelPair, tmp_path: Path) -> None:
    compression, mapper = pair.compressed.token_compression, mapper_of(pair.stock)
    inputs = make_inputs([ONE_IMAGE])
    compression.use_mapper(mapper)
    assert "mapper='<in memory>'" in repr(compression)
    scores = pair.compressed(**inputs).compression_report.samples[0].scores
    # Other changes keep the mapper, in a call and for good.
    report = pair.compressed(**inputs, token_compression=0.5).compression_report
    assert_same(report.samples[0].scores, scores)
    compression.update(retention_ratio=0.75)
    report = pair.compressed(**inputs).compression_report
    assert report.samples[0].visual_tokens_after == 36
    assert_same(report.samples[0].scores, scores)
    with one_sentence(ValueError, "<in memory>", "update"):
        compress(tiny_model(), compression.config)
    mapper.save_pretrained(tmp_path)
    assert f"mapper={str(tmp_path)!r}" in repr(compression)
    compression.update(scorer="uniform")
    assert compression.config == QUARTER.changed({"retention_ratio": 0.75, "scorer": "uniform"})


def test_a_scorer_that_was_assigned_is_named_and_not_saved(pair: ModelPair, tmp_path: Path) -> None:
    class Middle(Scorer):
        def score(self, prompt: Any) -> torch.Tensor:
            return prompt.visual_mask.float()

    compression = pair.compressed.token_compression
    compression.scorer = Middle()
    assert "scorer='<Middle>'" in repr(compression)
    with pytest.warns(UserWarning, match="<Middle>, was assigned and is not saved"):
        pair.compressed.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["token_compression"] == QUARTER
    Middle.scoring_depth = 9
    with one_sentence(ValueError, "scoring_depth"):
        compression.scorer = Middle()
