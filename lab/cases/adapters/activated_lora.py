"""Activated LoRA (`alora_invocation_tokens`) runs and equals stock on the prepared inputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from hf_token_compress import prepare_inputs

from ..common import apart
from ..outcome import failure, report
from ..random_models import compressed, qwen2_vl, qwen2_vl_inputs

INVOCATION = [50, 51]


def problems() -> Iterator[str]:
    """Forward and generate with an adapter that starts at its invocation tokens."""
    base, inputs = qwen2_vl(), qwen2_vl_inputs()
    inputs["input_ids"][:, 25:27] = torch.tensor(INVOCATION)
    stock = _adapted(copy.deepcopy(base))
    for ratio in (1.0, 0.5):
        model = _adapted(compressed(copy.deepcopy(base), ratio))
        with torch.no_grad():
            try:
                prepared = prepare_inputs(model.get_base_model(), **inputs)
                difference = apart(model(**inputs).logits, stock(**prepared).logits)
                if difference > 1e-4:
                    yield f"forward at {ratio}: {difference:.3g} from stock on prepared inputs"
            except Exception as error:
                yield f"forward at {ratio}: {failure(error)}"
            try:
                model.generate(**inputs, max_new_tokens=4)
            except Exception as error:
                yield f"generate at {ratio}: {failure(error)}"


def _adapted(model: Any) -> Any:
    torch.manual_seed(5)
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "k_proj", "v_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        alora_invocation_tokens=INVOCATION,
    )
    return get_peft_model(model, config).eval()


if __name__ == "__main__":
    report(problems)
