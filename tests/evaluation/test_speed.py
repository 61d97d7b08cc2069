"""Benchmarks: what must be true of them whatever the clock says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import full_only
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig, compress, load_tiny
from hf_token_compress.cli import app
from hf_token_compress.evaluation.speed import Spread, break_even, measure_speed
from hf_token_compress.evaluation.speed.bench import PromptBench
from hf_token_compress.evaluation.speed.break_even import first_count
from hf_token_compress.evaluation.speed.measure import planned_calls
from hf_token_compress.evaluation.speed.prompts import sized_prompt
from hf_token_compress.evaluation.speed.random_model import (
    read_config,
    read_processor,
    shorten,
)
from hf_token_compress.evaluation.speed.timing import TimedCall, generate, with_layers

pytestmark = pytest.mark.core

MODEL = "tiny-qwen2-vl"
SMALLEST = 64
"""Visual tokens of the smallest image that the processor of the tiny Qwen2-VL makes."""


@pytest.fixture
def tiny() -> tuple[Any, Any]:
    return load_tiny("qwen2-vl")


@contextmanager
def counted_prefills(model: Any) -> Iterator[list[int]]:
    """Notes each prompt that reaches the decoder's last layer, which no scorer here runs."""
    lengths: list[int] = []

    def note(module: Any, arguments: Any) -> None:
        if arguments[0].shape[1] > 1:
            lengths.append(arguments[0].shape[1])

    handle = model.get_decoder().layers[-1].register_forward_pre_hook(note)
    try:
        yield lengths
    finally:
        handle.remove()


def kv_bytes(config: Any, layers: int, tokens: int, element_size: int) -> int:
    head_dim = config.hidden_size // config.num_attention_heads
    return 2 * layers * config.num_key_value_heads * head_dim * element_size * tokens


def test_counts_caches_and_calls(tiny: tuple[Any, Any]) -> None:
    model, processor = tiny
    stock_class, text = type(model), model.config.get_text_config()
    calls: list[int] = []
    with counted_prefills(model) as prefills:
        results = measure_speed(
            model,
            processor,
            scorers=("attention",),
            retention_ratios=(0.25,),
            visual_tokens=(10,),
            batch_sizes=(1, 2),
            new_tokens=1,
            repeats=2,
            after_call=calls.append,
        )
    assert [result.scorer for result in results] == 2 * [None, "attention"]
    for result in results:
        full = results[0] if result.batch_size == 1 else results[2]
        kept = SMALLEST if result.scorer is None else SMALLEST // 4
        assert (result.visual_tokens, result.kept_visual_tokens) == (SMALLEST, kept)
        assert full.prompt_tokens - result.prompt_tokens == SMALLEST - kept
        tokens = result.batch_size * result.prompt_tokens
        assert result.kv_bytes == kv_bytes(text, text.num_hidden_layers, tokens, 4)
        compared = (result.to_full, result.to_ideal)
        spreads = [result.first_token, result.next_token, result.vision]
        if result.scorer is None:
            assert compared == (None, None)
        else:
            spreads += [result.scoring, result.rewriting]
            spreads += [spread for own in compared for spread in vars(own).values()]
            assert result.to_full.first_token == result.first_token.over(full.first_token)
        assert [len(spread.values) for spread in spreads] == [2] * len(spreads)
    # One to warm up and two repeats of the stock model, the setting and its ideal, then memory.
    assert len(prefills) == 2 * (3 * 3 + 2)
    assert len(calls) == planned_calls(settings=1, batches=2, repeats=2)
    assert len(calls) == len(prefills) + 2 * 3, "The vision part runs once a repeat."
    assert type(model) is stock_class


@pytest.mark.parametrize(
    "name",
    ["qwen2-vl", full_only("llava-onevision"), full_only("vila"), full_only("qwen2-vl-video")],
)
def test_the_ideal_is_the_compressed_model_without_scoring(name: str) -> None:
    model, processor = load_tiny(name)
    compress(model, {"scorer": "attention"})
    bench = PromptBench(model, sized_prompt(model, processor, SMALLEST, batch_size=2))
    bench.add("attention", {"retention_ratio": 0.25, "min_visual_tokens": 0})
    entry = bench.entries[1]
    own = generate(model, entry.inputs, 3, token_compression=entry.value, output_logits=True)
    ideal = generate(model, entry.ideal_inputs, 3, token_compression=False, output_logits=True)
    assert len(own.logits) == 3
    assert torch.equal(torch.stack(own.logits), torch.stack(ideal.logits))
    whole = generate(model, entry.inputs, 1, token_compression=False, output_logits=True)
    assert not torch.equal(own.logits[0], whole.logits[0])


@pytest.mark.parametrize(
    ("name", "wanted", "tokens", "images"),
    [
        ("qwen2-vl", 81, 81, 1),  # 9 x 9 on one image
        ("qwen2-vl", 500, 512, 2),  # an image has 256 at most
        full_only("vila", 500, 512, 8),  # an image has 64
        full_only("llava-onevision", 336, 336, 1),
    ],
)
def test_prompts_are_as_long_as_images_allow(
    name: str, wanted: int, tokens: int, images: int
) -> None:
    model, processor = load_tiny(name)
    prompt = sized_prompt(model, processor, wanted, batch_size=2)
    assert (prompt.visual_tokens, prompt.images) == (tokens, images)
    placeholders = prompt.inputs["input_ids"] == model.config.image_token_id
    assert placeholders.sum(dim=1).tolist() == [tokens, tokens]


@pytest.mark.parametrize("crossing", [1, 16, 17, 100, 3001, 5999, 6000])
def test_the_break_even_of_straight_lines_is_found(crossing: int) -> None:
    tried: list[int] = []

    def is_faster(count: int) -> bool:
        # Stock takes 10 + n, compressed 10 + n / 4 and so much that they meet at the crossing.
        tried.append(count)
        return 10 + 0.25 * count + 0.75 * crossing <= 10 + count

    found = first_count(is_faster, 16, 6000)
    assert found is not None
    assert max(crossing, 16) <= found <= max(16, 1.1 * crossing, crossing + 1)
    assert len(tried) == len(set(tried)) <= 16


def test_there_may_be_no_break_even() -> None:
    assert first_count(lambda count: False, 16, 6000) is None
    assert first_count(lambda count: False, 16, 16) is None


def test_break_even_is_a_real_count_and_leaves_the_setting_alone(tiny: tuple[Any, Any]) -> None:
    model, processor = tiny
    setting = TokenCompressionConfig(scorer="uniform", retention_ratio=0.25)
    measured: list[int] = []

    def note(count: int, share: float) -> None:
        measured.append(count)

    options: dict[str, Any] = {"max_visual_tokens": 16, "repeats": 1, "after_measurement": note}
    with one_sentence(ValueError, "config"):
        break_even(model, processor, **options)
    stock_class = type(model)
    assert break_even(model, processor, setting, **options) in (None, SMALLEST)
    assert type(model) is stock_class
    compress(model, setting)
    assert break_even(model, processor, **options) in (None, SMALLEST)
    assert model.token_compression.config == setting
    assert measured == [SMALLEST, SMALLEST]


def test_spreads() -> None:
    spread = Spread((4.0, 1.0, 2.0, 3.0, 5.0))
    assert (spread.median, spread.quartiles) == (3.0, (2.0, 4.0))
    assert Spread((3.0, 8.0)).over(Spread((1.0, 4.0))).values == (3.0, 2.0)
    assert Spread((7.0,)).quartiles == (7.0, 7.0)


def test_missing_layers_take_as_long_as_those_that_ran() -> None:
    ideal = TimedCall(8.0, 2.0, layer_first=3.0, layer_next=0.5)
    assert with_layers(TimedCall(10.0, 2.5), ideal, 4) == TimedCall(22.0, 4.5)
    assert with_layers(TimedCall(10.0, None), TimedCall(8.0, None), 0) == TimedCall(10.0, None)


@pytest.mark.parametrize(
    ("name", "parameters"), [("qwen2-vl-2b", 2_208_985_600), ("qwen2-vl-7b", 8_291_375_616)]
)
def test_named_sizes_are_those_of_the_published_models(name: str, parameters: int) -> None:
    """By the number of parameters that their pages on the Hub state."""
    config = read_config(name)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert model.num_parameters() == parameters
    assert read_processor(name).image_processor.patch_size == config.vision_config.patch_size


def test_shortened_models_say_so() -> None:
    config = read_config(MODEL)
    depth = shorten(config, layers=1, vision_layers=2)
    assert (depth.layers, depth.of_layers, depth.missing) == (1, 4, 3)
    assert (depth.decoder_scale, depth.missing_vision) == (4.0, 2)
    assert config.text_config.layer_types == ["full_attention"]
    assert len(AutoModelForImageTextToText.from_config(config).get_decoder().layers) == 1


def benchmark(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def test_the_command_measures_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output, plot = tmp_path / "speed.json", tmp_path / "speed.png"
    outcome = benchmark(
        *("--model", MODEL, "--random-weights", "--layers", 1, "--vision-layers", 1),
        *("--scorer", "uniform,mapper", "--retention-ratio", 0.25, "--visual-tokens", SMALLEST),
        *("--new-tokens", 1, "--repeats", 1, "--output", output, "--plot", plot),
    )
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(output.read_text())
    assert (found["random_weights"], found["mapper"]) == (True, "random weights")
    assert found["depth"]["layers"] == 1
    config = read_config(MODEL).text_config
    full, *others = found["results"]
    assert [result["scorer"] for result in others] == ["uniform", "mapper"]
    element = torch.finfo(getattr(torch, found["dtype"])).bits // 8
    # Scaled to the four layers of the real model.
    assert full["kv_bytes"] == kv_bytes(config, 4, full["prompt_tokens"], element)
    assert [entry["scorer"] for entry in found["break_even"]] == ["uniform", "mapper"]
    assert {entry["visual_tokens"] for entry in found["break_even"]} <= {None, SMALLEST}
    assert plot.stat().st_size > 0
    assert max(map(len, outcome.stdout.splitlines())) <= 80
    assert "1 of 4 decoder layers" in " ".join(outcome.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--scorer", "attention,none"], "none"),
        (["--scorer", "uniform:x"], "uniform:x"),
        (["--retention-ratio", "2"], "retention_ratio"),
        (["--visual-tokens", "many"], "--visual-tokens"),
        (["--batch-size", "0"], "batch_size"),
        (["--layers", "2"], "--random-weights"),
        (["--model", "qwen2-vl-7b"], "--random-weights"),
        (["--random-weights", "--layers", "5"], "at most 4"),
        (["--random-weights", "--mapper", MODEL], "--mapper"),
        (["--scorer", "uniform", "--mapper", MODEL], "--mapper"),
        (["--scorer", "mapper:tiny-none"], "tiny-none"),
        (["--attn-implementation", "fast"], "fast"),
        (["--markdown", "--json"], "--json"),
        (["--plot", "speed.txt"], "speed.txt"),
    ],
)
def test_wrong_arguments_are_named_before_a_model_is_loaded(
    arguments: list[str], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        AutoModelForImageTextToText, "from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    outcome = benchmark(*arguments)
    assert outcome.exit_code == 2, outcome.output
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("Error: ")
    assert word in line
    assert line.endswith(".")
