"""PEFT's batches with several adapters (`adapter_names=`) answer as each adapter alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from ..common import apart
from ..outcome import failure, report
from ..random_models import compressed, qwen2_vl, qwen2_vl_inputs

NAMES = ["__base__", "a", "b"]


def problems() -> Iterator[str]:
    """One sample without an adapter and one with each of two."""
    base, inputs = qwen2_vl(), qwen2_vl_inputs(batch=3)
    for ratio in (1.0, 0.5):
        model = _with_adapters(compressed(copy.deepcopy(base), ratio))
        with torch.no_grad():
            alone = _alone(model, inputs)
            for what in ("forward", "generate", "beams"):
                try:
                    same = _same(model, inputs, what, alone)
                except Exception as error:
                    yield f"at {ratio}, {what}: {failure(error)}"
                    continue
                if not same:
                    yield f"at {ratio}, {what}: differs from each adapter alone"


def _with_adapters(model: Any) -> Any:
    torch.manual_seed(5)
    adapted = get_peft_model(model, _lora(), adapter_name="a")
    adapted.add_adapter("b", _lora())
    return adapted.eval()


def _lora() -> LoraConfig:
    return LoraConfig(
        r=4,
        target_modules=["q_proj", "k_proj", "v_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )


def _alone(model: Any, inputs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Logits and generated ids of all samples, by adapter."""

    def both() -> tuple[Any, Any]:
        return model(**inputs).logits, model.generate(**inputs, max_new_tokens=4)

    with model.disable_adapter():
        found = {"__base__": both()}
    for name in NAMES[1:]:
        model.set_adapter(name)
        found[name] = both()
    return found


def _same(model: Any, inputs: dict[str, Any], what: str, alone: dict[str, Any]) -> bool:
    if what == "forward":
        mixed = model(**inputs, adapter_names=NAMES).logits
        pairs = zip(mixed, (alone[name][0][n] for n, name in enumerate(NAMES)), strict=True)
        return all(apart(*pair) < 1e-4 for pair in pairs)
    if what == "beams":
        model.generate(**inputs, max_new_tokens=4, num_beams=2, adapter_names=NAMES)
        return True
    mixed = model.generate(**inputs, max_new_tokens=4, adapter_names=NAMES)
    return all(torch.equal(mixed[n], alone[name][1][n]) for n, name in enumerate(NAMES))


if __name__ == "__main__":
    report(problems)
