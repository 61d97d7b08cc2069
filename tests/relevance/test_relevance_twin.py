"""Explanations run on a twin: the model keeps its state, and may be used meanwhile."""

from __future__ import annotations

import gc
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from matrix import full_only
from pairs import QUARTER
from peft import LoraConfig, inject_adapter_in_model
from tiny_models import IMAGE_AND_VIDEO, ONE_IMAGE, TWO_IMAGES, TWO_TURNS, make_inputs, tiny_model
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from hf_token_compress import compress
from hf_token_compress.relevance import PropagationRule, faithfulness, relevance
from hf_token_compress.relevance.rules import registry

pytestmark = pytest.mark.core

ANSWER = [torch.tensor([3, 4])]
PROMPTS = (ONE_IMAGE, TWO_TURNS, TWO_IMAGES, IMAGE_AND_VIDEO)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that hangs on the modules of a model."""
    found: dict[str, Any] = {}
    for module_name, module in model.named_modules():
        for name, value in vars(module).items():
            key = f"{module_name}.{name}"
            found[key] = value
            if isinstance(value, dict):
                found |= {f"{key}.{own}": item for own, item in value.items()}
        found[f"{module_name} class"] = type(module)
    return found


def assert_same_state(model: nn.Module, before: dict[str, Any], values: Any) -> None:
    after = state(model)
    assert after.keys() == before.keys()
    assert not [name for name, value in after.items() if value is not before[name]]
    assert content(model) == values


def content(model: Any) -> Any:
    """What the objects in the state hold."""
    return (
        model.config.to_dict(),
        model.get_decoder().config._attn_implementation,
        model.generation_config.to_dict(),
        [(own.requires_grad, own.grad is None, own._version) for own in model.parameters()],
        torch.is_grad_enabled(),
    )


def prepared(compressed: bool = False, attention: str = "sdpa") -> Any:
    model = tiny_model(attention)
    model.train()
    model.model.visual.eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    model.model.rope_deltas = torch.tensor([[7]])
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: output)
    return compress(model, QUARTER) if compressed else model


@pytest.fixture
def broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(PropagationRule):
        def propagate(self, relevance: Any, layer: Any, gradient: Any, start: Any) -> Any:
            raise RuntimeError("broken")

    monkeypatch.setattr(registry.RULES, "registered", {"broken": Broken})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_model_is_not_touched(compressed: bool, checkpointing: bool, attention: str) -> None:
    model = prepared(compressed, attention)
    before, values = state(model), content(model)
    inputs = make_inputs([ONE_IMAGE])
    relevance(model, inputs, max_new_tokens=2, checkpointing=checkpointing)
    faithfulness(model, inputs, [torch.rand(48)], max_new_tokens=2, retention_ratios=[0.5])
    assert_same_state(model, before, values)


@pytest.mark.usefixtures("broken_rule")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_model_is_not_touched_by_an_exception(checkpointing: bool) -> None:
    model = prepared(compressed=True)
    before, values = state(model), content(model)
    inputs = make_inputs([ONE_IMAGE])
    with pytest.raises(RuntimeError, match="broken"):
        relevance(model, inputs, answer_ids=ANSWER, rule="broken", checkpointing=checkpointing)
    assert_same_state(model, before, values)
    relevance(model, inputs, answer_ids=ANSWER)


@pytest.mark.parametrize("checkpointing", [full_only(False), True])
@pytest.mark.parametrize("hooked", [full_only(False), True])
def test_nothing_outlives_an_explanation(hooked: bool, checkpointing: bool) -> None:
    """A circle of references would keep the weights of a model that is deleted."""
    model, inputs = tiny_model(), make_inputs([ONE_IMAGE])
    if hooked:
        cpu_offload(model, execution_device=torch.device("cpu"))
    options: dict[str, Any] = {"max_new_tokens": 2, "checkpointing": checkpointing}
    relevance(model, inputs, **options)

    def modules() -> set[int]:
        return {id(item) for item in gc.get_objects() if issubclass(type(item), nn.Module)}

    gc.collect()
    gc.disable()
    try:
        before = modules()
        relevance(model, inputs, **options)
        assert modules() <= before
    finally:
        gc.enable()


# Threads


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(tasks: list[Callable[[], list[Tensor]]], times: int) -> list[list[list[Tensor]]]:
    """What each task returns, each run so many times in its own thread."""
    results: list[list[list[Tensor]]] = [[] for _ in tasks]
    errors: list[BaseException] = []
    start = threading.Barrier(len(tasks))

    def work(number: int) -> None:
        try:
            start.wait()
            results[number] = [tasks[number]() for _ in range(times)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    return results


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_vl", "vila15"])
def test_others_may_generate_meanwhile(family: str, compressed: bool) -> None:
    model = tiny_model(family=family)
    if compressed:
        compress(model, QUARTER)
    # Stock Qwen2-VL cannot generate for two prompts at once: it keeps the offset of the last.
    generated = [TWO_IMAGES, TWO_IMAGES if family == "qwen2_vl" else TWO_TURNS]

    def explain(prompt: Any, rule: str) -> Callable[[], list[Tensor]]:
        inputs = make_inputs([prompt], family=family)

        def run() -> list[Tensor]:
            (sample,) = relevance(model, inputs, max_new_tokens=2, rule=rule).samples
            return [sample.scores, sample.answer_ids]

        return run

    def generate(prompt: Any) -> Callable[[], list[Tensor]]:
        inputs = make_inputs([prompt], family=family)
        return lambda: [model.generate(**inputs, max_new_tokens=4, do_sample=False)]

    tasks = [explain(ONE_IMAGE, "gae"), explain(TWO_TURNS, "gradient_input")]
    tasks += [generate(prompt) for prompt in generated]
    alone = [task() for task in tasks]
    for expected, found in zip(alone, in_threads(tasks, 3), strict=True):
        for result in found:
            for one, other in zip(result, expected, strict=True):
                assert torch.equal(one, other)


# Training


@pytest.mark.parametrize("rule", ["gae", "gradient_input"])
def test_a_model_in_training_is_explained_as_in_evaluation(rule: str) -> None:
    """LoRA with dropout, and dropout in attention."""

    def trained() -> Any:
        model = tiny_model(attention_dropout=0.5)
        lora = LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj", "up_proj"])
        model = inject_adapter_in_model(lora, model)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter)
        return model

    evaluated, training = trained().eval(), trained()
    training.train()
    inputs = make_inputs(PROMPTS)
    for one, other in zip(
        relevance(evaluated, inputs, rule=rule, max_new_tokens=2).samples,
        relevance(training, inputs, rule=rule, max_new_tokens=2).samples,
        strict=True,
    ):
        assert torch.equal(one.answer_ids, other.answer_ids)
        assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("rule", ["gae", "gradient_input"])
def test_parameters_in_training_take_no_memory(rule: str) -> None:
    """Autograd would keep the input of every linear layer for the gradient of its weights."""

    def saved_bytes(requires_grad: bool) -> int:
        model, inputs = tiny_model().requires_grad_(requires_grad), make_inputs([ONE_IMAGE])
        saved: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.nbytes)
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            relevance(model, inputs, answer_ids=ANSWER, rule=rule)
        return sum(saved)

    assert saved_bytes(True) == saved_bytes(False) > 0


# Offloaded weights


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_offloaded_weights_are_loaded_for_the_backward_pass_too(
    kind: str, checkpointing: bool
) -> None:
    inputs = make_inputs(PROMPTS)
    expected = relevance(tiny_model(), inputs, max_new_tokens=2)
    model = tiny_model().requires_grad_(True)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        if kind == "cpu":
            cpu_offload(model, execution_device=device)
        else:
            disk_offload(model, folder, execution_device=device)
        found = relevance(model, inputs, max_new_tokens=2, checkpointing=checkpointing)
        for one, other in zip(found.samples, expected.samples, strict=True):
            assert torch.equal(one.answer_ids, other.answer_ids)
            assert torch.equal(one.scores, other.scores)
        assert all(parameter.is_meta for parameter in model.parameters())
