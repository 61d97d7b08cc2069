"""Compressed models inside PEFT and under Accelerate's hooks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import remove_hook_from_submodules
from eager_attention import assert_scores_and_tokens, eager_scores
from errors import one_sentence
from pairs import KEEP_ALL, QUARTER, ModelPair, answer, assert_same, make_pair, masked_inputs
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny_models import FAMILIES, ONE_IMAGE, RAGGED, TEXT_ONLY, make_inputs, tiny_family, tiny_model
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2VLForConditionalGeneration

from hf_token_compress import TokenCompressionConfig, compress, prepare_inputs, uncompress
from hf_token_compress.compression.reading import read_prompt

pytestmark = [
    pytest.mark.core,
    # PEFT reads a property that newer Transformers renamed.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


def with_lora(model: Any, task: str | None = None) -> PeftModel:
    """LoRA on queries, keys and values, large enough to change which tokens are kept."""
    config = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj"], task_type=task)
    wrapped = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    return wrapped


@pytest.fixture(params=[None, "CAUSAL_LM"])
def lora_pair(request: pytest.FixtureRequest, pair: ModelPair) -> ModelPair:
    return ModelPair(
        with_lora(pair.stock, request.param), with_lora(pair.compressed, request.param)
    )


def test_lora_equals_stock_with_the_same_lora(
    lora_pair: ModelPair,
) -> None:
    stock, compressed = lora_pair
    inputs = make_inputs(RAGGED)
    with torch.no_grad():
        prepared = prepare_inputs(compressed.get_base_model(), **inputs)
    assert_same(compressed(**inputs).logits, stock(**prepared).logits)
    expected = answer(stock.generate(**prepared, max_new_tokens=6), prepared)
    assert torch.equal(answer(compressed.generate(**inputs, max_new_tokens=6), inputs), expected)


def test_lora_changes_which_tokens_are_kept(lora_pair: ModelPair, pair: ModelPair) -> None:
    """The scorer calls the wrapped projections of layer 0."""
    inputs = make_inputs([ONE_IMAGE])
    pair.compressed(**inputs)
    plain = pair.compressed.token_compression.last.samples[0].scores
    lora_pair.compressed(**inputs)
    base = lora_pair.compressed.get_base_model()
    assert (base.token_compression.last.samples[0].scores - plain).abs().max() > 1e-4
    with lora_pair.compressed.disable_adapter():
        lora_pair.compressed(**inputs)
    assert_same(base.token_compression.last.samples[0].scores, plain)


def test_lora_takes_the_ratio_of_a_call(lora_pair: ModelPair) -> None:
    compressed = lora_pair.compressed
    inputs = make_inputs([ONE_IMAGE])
    last = compressed.get_base_model().token_compression
    compressed(**inputs, token_compression=0.5)
    assert last.last.samples[0].visual_tokens_after == 24
    compressed.generate(**inputs, token_compression=0.125, max_new_tokens=1)
    assert last.last.samples[0].visual_tokens_after == 6


def test_lora_dropout_does_not_affect_the_scores(pair: ModelPair) -> None:
    """In training, the scores equal those in evaluation."""
    config = LoraConfig(
        r=4, target_modules=["q_proj", "k_proj"], lora_dropout=0.5, init_lora_weights=False
    )
    wrapped = get_peft_model(pair.compressed, config)
    inputs = make_inputs([ONE_IMAGE])
    wrapped.eval()(**inputs)
    expected = pair.compressed.token_compression.last.samples[0].scores
    wrapped.train()(**inputs)
    assert_same(pair.compressed.token_compression.last.samples[0].scores, expected)
    modes = {module.training for module in wrapped.modules()}
    assert modes == {True}


def test_gradients_reach_every_lora_weight_and_no_other(lora_pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"] != 0, -100)
    labels = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    lora_pair.compressed(**inputs, labels=labels).loss.backward()
    for name, parameter in lora_pair.compressed.named_parameters():
        if "lora_" in name and "visual" not in name:
            assert parameter.grad.abs().max() > 0, name
        elif "lora_" not in name:
            assert parameter.grad is None, name


def test_lora_round_trips_and_merges(lora_pair: ModelPair, tmp_path: Path) -> None:
    inputs = make_inputs(RAGGED)
    expected = lora_pair.compressed(**inputs).logits
    lora_pair.compressed.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(compress(tiny_model(), QUARTER), tmp_path)
    assert_same(loaded(**inputs).logits, expected)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    assert type(uncompress(merged)) is Qwen2VLForConditionalGeneration


def test_adapters_are_switched_merged_and_unmerged() -> None:
    """The scores follow, as the stock model's outputs do."""
    stock = with_adapters(tiny_model(), "first", "second")
    compressed = with_adapters(compress(tiny_model(), QUARTER), "first", "second")
    base, inputs = compressed.get_base_model(), make_inputs(RAGGED)

    def outputs() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = compressed(**inputs).logits
            expected = stock(**prepare_inputs(base, **inputs)).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        return logits, base.token_compression.last.samples[0].scores

    found = {}
    for name in ("first", "second"):
        for model in (stock, compressed):
            model.set_adapter(name)
        found[name] = outputs()
        for change in ("merge_adapter", "unmerge_adapter"):
            for model in (stock, compressed):
                getattr(model, change)()
            for now, before in zip(outputs(), found[name], strict=True):
                torch.testing.assert_close(now, before, rtol=1e-4, atol=1e-4)
    scores = [own for _, own in found.values()]
    assert (scores[0] - scores[1]).abs().max() > 1e-4


def with_virtual_tokens(kind: Any, pair: ModelPair) -> ModelPair:
    """Three virtual tokens before every prompt, large enough to matter."""
    models = []
    for model in pair:
        config = kind(task_type="CAUSAL_LM", num_virtual_tokens=3)
        models.append(get_peft_model(model, config).eval())
        generator = torch.Generator().manual_seed(3)
        for parameter in models[-1].prompt_encoder.parameters():
            parameter.data.normal_(generator=generator)
    return ModelPair(*models)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")  # in PEFT
def test_prefix_tuning_is_as_on_stock() -> None:
    inputs = make_inputs(RAGGED, family="llava_onevision")
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    pair = make_pair(family="llava_onevision")
    stock, compressed = with_virtual_tokens(PrefixTuningConfig, pair)
    whole = stock(**inputs, labels=labels)
    keep_all = compressed(**inputs, labels=labels, token_compression=1.0)
    assert torch.equal(keep_all.logits, whole.logits)
    loss = compressed(**inputs, labels=labels).loss
    mask = masked_inputs(pair, inputs)["attention_mask"]
    assert_same(loss, stock(**{**inputs, "attention_mask": mask}, labels=labels).loss)
    assert (loss - whole.loss).abs() > 1e-3
    loss.backward()
    assert all(own.grad.abs().max() > 0 for own in compressed.prompt_encoder.parameters())


def test_prompt_tuning_is_refused_with_images_alone() -> None:
    """PEFT hides the placeholders behind embeddings."""
    stock, compressed = with_virtual_tokens(PromptTuningConfig, make_pair())
    inputs = make_inputs([ONE_IMAGE])
    with one_sentence(ValueError, "inputs_embeds", "prompt tuning"):
        compressed(**inputs)
    with compressed.get_base_model().token_compression.disabled():
        assert torch.equal(compressed(**inputs).logits, stock(**inputs).logits)
    text = make_inputs([TEXT_ONLY])
    assert torch.equal(compressed(**text).logits, stock(**text).logits)


ADAPTERS = ["__base__", "first", "second", "first"]
"""The adapter of each sample of `RAGGED`; PEFT calls the model without one `__base__`."""


def at_depth(depth: int) -> TokenCompressionConfig:
    return TokenCompressionConfig(
        retention_ratio=0.25,
        min_visual_tokens=0,
        min_tokens_per_visual=0,
        structure_share=0.0,
        scorer="attention",
        scorer_options={"scoring_depth": depth},
    )


def with_adapters(model: Any, *names: str, **options: Any) -> PeftModel:
    """Adapters on queries, keys and values of the language model; equal names, equal weights."""
    config = LoraConfig(
        r=4, target_modules=["q_proj", "k_proj", "v_proj"], task_type="CAUSAL_LM", **options
    )
    wrapped = get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        wrapped.add_adapter(name, config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    return wrapped.eval()


@pytest.fixture(params=[0, 2])
def depth(request: pytest.FixtureRequest) -> int:
    return request.param


def test_every_sample_of_a_mixed_batch_is_scored_with_its_own_adapter(depth: int) -> None:
    stock = with_adapters(tiny_model(), "first", "second")
    compressed = with_adapters(compress(tiny_model(), at_depth(depth)), "first", "second")
    base, inputs = compressed.get_base_model(), make_inputs(RAGGED)
    mixed = {**inputs, "adapter_names": ADAPTERS}
    with torch.no_grad():
        logits = compressed(**mixed).logits
    prompt, _ = read_prompt(stock.get_base_model(), inputs)
    expected = eager_scores(stock, mixed, prompt, depth)
    assert_scores_and_tokens(base.token_compression.last.samples, expected, prompt, at_depth(depth))
    for name in set(ADAPTERS):
        # All samples with one adapter.
        with torch.no_grad():
            own = compressed(**inputs, adapter_names=[name] * len(ADAPTERS)).logits
        samples = [number for number, adapter in enumerate(ADAPTERS) if adapter == name]
        assert_same(logits[samples], own[samples])


@pytest.mark.parametrize("beams", [1, 2])
def test_a_mixed_batch_generates_as_each_adapter_does(beams: int, depth: int) -> None:
    compressed = with_adapters(compress(tiny_model(), at_depth(depth)), "first", "second")
    inputs = make_inputs(RAGGED)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": beams}
    mixed = compressed.generate(**inputs, **options, adapter_names=ADAPTERS)
    for number, name in enumerate(ADAPTERS):
        own = compressed.generate(**inputs, **options, adapter_names=[name] * len(ADAPTERS))
        assert torch.equal(mixed[number], own[number])


def test_activated_lora_keeps_the_tokens_of_the_base_model(depth: int) -> None:
    """The prompt before the invocation is the base model's, so that both can share its cache."""
    options = {"alora_invocation_tokens": [50, 51]}
    stock = with_adapters(tiny_model(), "first", **options)
    compressed = with_adapters(compress(tiny_model(), at_depth(depth)), "first", **options)
    base, inputs = compressed.get_base_model(), make_inputs(RAGGED)
    inputs["input_ids"][:, -7:-5] = torch.tensor([50, 51])
    prompt, _ = read_prompt(tiny_model(), inputs)
    expected = eager_scores(tiny_model(), inputs, prompt, depth)
    with torch.no_grad():
        logits = compressed(**inputs).logits
        samples = base.token_compression.last.samples
        prepared = prepare_inputs(base, **inputs)
        assert_same(logits, stock(**prepared).logits)
        # The adapter answers, from its invocation on.
        assert (logits - stock.get_base_model()(**prepared).logits).abs().max() > 1e-2
    assert_scores_and_tokens(samples, expected, prompt, at_depth(depth))
    found = answer(compressed.generate(**inputs, max_new_tokens=4), inputs)
    assert torch.equal(found, answer(stock.generate(**prepared, max_new_tokens=4), prepared))


@pytest.fixture(params=["disk", "cpu_and_disk"])
def offloaded(
    request: pytest.FixtureRequest, stock_folder: Path, tmp_path: Path
) -> Qwen2VLForConditionalGeneration:
    """With weights left on disk, so that Accelerate replaces `forward` on every instance."""
    places = {"model.visual": "cpu", "model.language_model": "disk", "lm_head": "cpu"}
    device_map = {"": "disk"} if request.param == "disk" else places
    model = AutoModelForImageTextToText.from_pretrained(
        stock_folder,
        device_map=device_map,
        offload_folder=tmp_path / "offload",
        token_compression=QUARTER,
    )
    assert any(parameter.device.type == "meta" for parameter in model.parameters())
    return model


def test_offloaded_models_compress(
    offloaded: Qwen2VLForConditionalGeneration, pair: ModelPair
) -> None:
    inputs = make_inputs(RAGGED)
    with torch.no_grad():
        assert_same(offloaded(**inputs).logits, pair.compressed(**inputs).logits)
    assert offloaded.token_compression.last.samples[0].visual_tokens_after == 12
    out = offloaded.generate(**inputs, max_new_tokens=6)
    assert torch.equal(out, pair.compressed.generate(**inputs, max_new_tokens=6))


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_that_were_removed_again(family: str) -> None:
    """Accelerate leaves `forward` on the instance."""
    stock, compressed = make_pair(family=family)
    inputs = make_inputs([ONE_IMAGE], family=family)
    with torch.no_grad():
        expected = [model(**inputs).logits for model in (stock, compressed)]
        for model in (stock, compressed):
            dispatch_model(model, {"": "cpu"}, force_hooks=True)
            remove_hook_from_submodules(model)
            assert "forward" in vars(model)
        assert torch.equal(uncompress(compressed)(**inputs).logits, expected[0])
        assert torch.equal(compress(stock, QUARTER)(**inputs).logits, expected[1])
    assert "forward" not in vars(stock) | vars(compressed)


def test_offloaded_models_uncompress(
    offloaded: Qwen2VLForConditionalGeneration, pair: ModelPair
) -> None:
    inputs = make_inputs(RAGGED)
    uncompress(offloaded)
    assert type(offloaded) is Qwen2VLForConditionalGeneration
    with torch.no_grad():
        assert_same(offloaded(**inputs).logits, pair.stock(**inputs).logits)
        compress(offloaded, QUARTER)
        assert_same(offloaded(**inputs).logits, pair.compressed(**inputs).logits)


def test_accelerate_hooks_can_be_removed_later(pair: ModelPair) -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    model = make_pair().stock
    add_hook_to_module(model, AlignDevicesHook(io_same_device=True))
    compress(model, QUARTER)
    inputs = make_inputs(RAGGED)
    expected = pair.compressed(**inputs).logits
    assert torch.equal(model(**inputs).logits, expected)
    # A hook moves every argument to a device, dicts and lists by their elements.
    for value in (QUARTER, dict(QUARTER), [0.25] * len(RAGGED)):
        assert torch.equal(model(**inputs, token_compression=value).logits, expected)
    remove_hook_from_module(model)
    assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("config", [at_depth(0), at_depth(2), KEEP_ALL], ids=["0", "2", "all"])
@pytest.mark.parametrize("place", ["cpu", "disk"])
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_vl"])
def test_offloaded_weights_score_as_resident_ones(
    family: str, place: str, config: TokenCompressionConfig, tmp_path: Path
) -> None:
    """The newline of LLaVA-OneVision is a weight of the model itself, not of one of its parts."""
    stock = tiny_model(family=family)
    resident = compress(copy.deepcopy(stock), config)
    if place == "cpu":
        model = cpu_offload(compress(copy.deepcopy(stock), config), torch.device("cpu"))
    else:
        stock.save_pretrained(tmp_path)
        model = AutoModelForImageTextToText.from_pretrained(
            tmp_path,
            device_map={"": "disk"},
            offload_folder=tmp_path / "offload",
            token_compression=config,
        )
    assert all(parameter.is_meta for parameter in model.parameters())
    inputs = make_inputs(tiny_family(family).prompts["ragged"], family=family)
    with torch.no_grad():
        for _ in range(2):  # nothing is left behind by the first call
            assert_same(model(**inputs).logits, resident(**inputs).logits)
    assert all(parameter.is_meta for parameter in model.parameters())
    reports = (own.token_compression.last.samples for own in (model, resident))
    for found, expected in zip(*reports, strict=True):
        assert torch.equal(found.kept_visual, expected.kept_visual)
        if config is not KEEP_ALL:
            assert_same(found.scores, expected.scores)
