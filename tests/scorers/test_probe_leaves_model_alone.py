"""Scoring touches nothing of the model, and nothing that is done to the model changes the scores.

So it is safe beside other threads, in training, and under compiled or replaced calls.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from matrix import full_only
from pairs import assert_same
from peft import LoraConfig, get_peft_model
from tiny_decoders import decoder_model
from tiny_models import FAMILIES, ONE_IMAGE, TEXT_ONLY, make_inputs, tiny_family, tiny_model
from torch import Tensor, nn
from transformers.integrations.neftune import neftune_post_forward_hook

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.scorers.attention import instruction_attention

pytestmark = [
    pytest.mark.core,
    # PEFT reads a property that newer Transformers renamed.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

each_depth = pytest.mark.parametrize("depth", [0, 2])
each_family = pytest.mark.parametrize("family", FAMILIES)


def compressed_at(depth: int, model: Any = None) -> Any:
    config = {
        "retention_ratio": 0.25,
        "min_visual_tokens": 0,
        "scorer": "attention",
        "scorer_options": {"scoring_depth": depth},
    }
    return compress(tiny_model() if model is None else model, config)


def scores(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Scores of the first sample's visual tokens, float32 [N]."""
    with torch.no_grad():
        prepare_inputs(model, **inputs)
    found: Tensor = model.token_compression.last.samples[0].scores
    return found


# Threads


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Python changes threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_together(*work: Callable[[], None]) -> None:
    """Run functions in a thread each, started together; the first error is raised here."""
    barrier, errors = threading.Barrier(len(work)), []

    def run(function: Callable[[], None]) -> None:
        torch.set_num_threads(1)
        barrier.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("eager_switching")
@each_depth
@pytest.mark.parametrize("threads", [2, 4])
def test_threads_get_the_tokens_of_their_own_prompts(threads: int, depth: int) -> None:
    """1,000 calls over all cases, on two prompts of one length."""
    model = compressed_at(depth)
    prompts = [make_inputs([ONE_IMAGE], seed=seed) for seed in range(2)]
    with torch.no_grad():
        expected = [prepare_inputs(model, **inputs)["position_ids"] for inputs in prompts]
    assert not torch.equal(*expected)

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(250 // threads):
                found = prepare_inputs(model, **prompts[number])["position_ids"]
                assert torch.equal(found, expected[number])

    run_together(*(lambda number=i % 2: work(number) for i in range(threads)))


@pytest.mark.usefixtures("eager_switching")
@each_depth
def test_a_forward_in_another_thread_is_not_disturbed(depth: int) -> None:
    model = compressed_at(depth)
    inputs, text = make_inputs([ONE_IMAGE]), make_inputs([TEXT_ONLY])
    expected = scores(model, inputs)
    with torch.no_grad():
        logits = model(**text).logits

    def score() -> None:
        for _ in range(100):
            assert torch.equal(scores(model, inputs), expected)

    def run() -> None:
        with torch.no_grad():
            for _ in range(100):
                assert torch.equal(model(**text).logits, logits)

    run_together(score, run)


# The model afterwards


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything that the modules and configurations of a model hold, by name."""
    state: dict[str, Any] = {}
    holders = list(model.named_modules())
    holders += [(f"{name}.config", m.config) for name, m in holders if hasattr(m, "config")]
    for name, holder in holders:
        state[f"{name}.__class__"] = type(holder)
        for key, value in vars(holder).items():
            state[f"{name}.{key}"] = value
            if isinstance(value, dict):
                state |= {f"{name}.{key}.{inner}": own for inner, own in value.items()}
    return state


def encode_only(model: Any, inputs: Mapping[str, Tensor]) -> None:
    """Run the vision part, which hooks itself for its outputs when it first runs."""
    with torch.no_grad():
        prepare_inputs(model, **inputs, token_compression=1.0)


def assert_untouched(model: nn.Module, action: Callable[[], object]) -> None:
    """Every module holds the same objects after an action, and no tensor was written."""
    before = state_of(model)
    versions = {name: own._version for name, own in before.items() if isinstance(own, Tensor)}
    action()
    after = state_of(model)
    assert after.keys() == before.keys()
    assert [name for name, value in before.items() if after[name] is not value] == []
    assert {name: after[name]._version for name in versions} == versions


@each_depth
@each_family
def test_modules_hold_the_same_objects_after_scoring(family: str, depth: int) -> None:
    model = compressed_at(depth, tiny_model(family=family))
    inputs = make_inputs(tiny_family(family).prompts["one_image"], family=family)
    encode_only(model, inputs)
    assert_untouched(model, lambda: scores(model, inputs))
    with torch.no_grad():
        model(**inputs)  # Qwen2-VL remembers an offset of positions.
    assert_untouched(model, lambda: scores(model, inputs))
    assert_untouched(model.train(), lambda: scores(model, inputs))


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@each_depth
def test_rope_that_depends_on_the_length_stays_as_it_was(depth: int) -> None:
    """Dynamic RoPE stores the frequencies of the longest prompt in its module."""
    stock = decoder_model("llama", rope_parameters=DYNAMIC, max_position_embeddings=16)
    rope = stock.model.language_model.rotary_emb
    short, long = rope.inv_freq.clone(), make_inputs([ONE_IMAGE], family="llava_onevision")
    model = compressed_at(depth, stock)
    encode_only(model, long)
    assert_untouched(model, lambda: scores(model, long))
    assert torch.equal(rope.inv_freq, short)
    with torch.no_grad():
        model(**long)
    assert not torch.equal(rope.inv_freq, short)
    assert_untouched(model, lambda: scores(model, long))


@each_depth
def test_long_rope_keeps_its_frequencies(depth: int) -> None:
    """Transformers copies the frequencies of the prompt's length into a buffer, in place."""
    long = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0] * 4,
        "long_factor": [8.0] * 4,
    }
    stock = decoder_model("phi3", rope_parameters=long, head_dim=8, max_position_embeddings=128)
    buffers = {name: value.clone() for name, value in stock.named_buffers()}
    model = compressed_at(depth, stock)
    scores(model, make_inputs([ONE_IMAGE], family="llava_onevision"))
    for name, value in stock.named_buffers():
        assert torch.equal(value, buffers[name]), name


@each_depth
def test_hooks_stay_where_they_are(depth: int) -> None:
    """Users' hooks on the model's modules are still called afterwards, once per forward."""
    model, calls = compressed_at(depth), []
    layer = model.model.language_model.layers[0]
    layer.register_forward_hook(lambda *_: calls.append("after"))
    layer.register_forward_pre_hook(lambda *_: calls.append("before"))
    inputs = make_inputs([ONE_IMAGE])
    assert_untouched(model, lambda: scores(model, inputs))
    calls.clear()
    with torch.no_grad():
        model(**make_inputs([TEXT_ONLY]))
    assert calls == ["before", "after"]


# Training


def with_dropout(model: Any) -> Any:
    """LoRA with dropout and attention with dropout, in the language model."""
    for module in model.model.language_model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    config = LoraConfig(
        r=4,
        target_modules=r".*language_model.*\.[qk]_proj",
        lora_dropout=0.5,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    return get_peft_model(model, config)


def with_neftune(model: Any) -> Any:
    embeddings = model.get_input_embeddings()
    embeddings.neftune_noise_alpha = 5.0
    embeddings.register_forward_hook(neftune_post_forward_hook)
    return model


@each_depth
@each_family
@pytest.mark.parametrize("change", [with_dropout, with_neftune])
def test_training_scores_as_evaluation_does(change: Any, family: str, depth: int) -> None:
    model = compressed_at(depth, tiny_model(family=family))
    inputs = make_inputs(tiny_family(family).prompts["one_image"], family=family)
    changed = change(model)
    expected = scores(model, inputs)
    changed.train()
    before = torch.get_rng_state()
    assert torch.equal(scores(model, inputs), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in changed.modules())
    changed(**inputs)  # a whole step, whose dropout draws numbers
    assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.token_compression.last.samples[0].scores, expected)


@each_depth
def test_gradient_checkpointing_scores_as_evaluation_does(depth: int) -> None:
    model, inputs = compressed_at(depth), make_inputs([ONE_IMAGE])
    expected = scores(model, inputs)
    renamed = getattr(model, "activation_checkpointing_enable", None)
    (renamed or model.gradient_checkpointing_enable)()
    assert torch.equal(scores(model.train(), inputs), expected)


# Calls that were replaced


def compile_layer(model: Any) -> None:
    model.model.language_model.layers[0].compile(backend="eager")


def wrap_layer(model: Any) -> None:
    layers = model.model.language_model.layers
    layers[0] = torch.compile(layers[0], backend="eager")


def compile_decoder(model: Any) -> None:
    model.model.language_model.compile(backend="eager")


@each_depth
@pytest.mark.parametrize("change", [compile_layer, wrap_layer, compile_decoder])
def test_compiled_layers_score_as_others_do(change: Callable[[Any], None], depth: int) -> None:
    plain = tiny_model()
    inputs = make_inputs([ONE_IMAGE])
    expected = scores(compressed_at(depth, copy.deepcopy(plain)), inputs)
    change(plain)
    model = compressed_at(depth, plain)
    assert_untouched(model, lambda: assert_same(scores(model, inputs), expected))


@pytest.mark.parametrize("depth", [full_only(0), full_only(2)])
def test_a_compiled_model_scores_as_it_does_uncompiled(depth: int) -> None:
    """The probe runs outside the graph."""
    model, inputs = compressed_at(depth), make_inputs([ONE_IMAGE])
    expected = scores(model, inputs)
    with torch.no_grad():
        torch.compile(model, backend="eager")(**inputs)
    assert_same(model.token_compression.last.samples[0].scores, expected)


@each_depth
def test_a_compiled_model_without_its_head_can_be_scored(depth: int) -> None:
    model, inputs = compressed_at(depth), make_inputs([ONE_IMAGE])
    expected = scores(model, inputs)
    model.model = torch.compile(model.model, backend="eager")
    assert_same(scores(model, inputs), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda attention: setattr(attention, "scaling", 0.01),
        lambda attention: setattr(attention, "__class__", type("Own", (type(attention),), {})),
        lambda attention: attention.q_proj.register_forward_hook(lambda *_: None),
        lambda attention: setattr(attention, "q_proj", copy.deepcopy(attention.q_proj)),
    ],
    ids=["scaling", "class", "hook", "module"],
)
def test_the_fast_path_is_left_when_layer_0_changes(change: Callable[[Any], None]) -> None:
    model, inputs = compressed_at(0), make_inputs([ONE_IMAGE])
    assert model.token_compression.fast_path.fits(model)
    change(model.get_decoder().layers[0].self_attn)
    assert not model.token_compression.fast_path.fits(model)
    _, layer = read_prompt(model, inputs)  # by the probe
    found = scores(model, inputs)
    visual = model.token_compression.last.samples[0].visual_indices
    assert_same(found, instruction_attention(layer)[0, visual])


def test_the_fast_path_is_found_again_in_a_copy() -> None:
    model = compressed_at(0)
    copied = copy.deepcopy(model)
    assert copied.token_compression.fast_path.fits(copied)
    assert not model.token_compression.fast_path.fits(copied)


@each_depth
@pytest.mark.parametrize("part", ["layers.0", "layers.0.self_attn", "layers.0.self_attn.q_proj"])
def test_a_forward_replaced_on_an_instance_is_left_behind(part: str, depth: int) -> None:
    model, inputs = compressed_at(depth), make_inputs([ONE_IMAGE])
    expected = scores(model, inputs)
    module = model.model.language_model.get_submodule(part)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("scoring called the forward of an instance")

    module.forward = refuse
    assert torch.equal(scores(model, inputs), expected)
    assert vars(module)["forward"] is refuse
