"""A LoRA adapter in PEFT's format, merged into weights as they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

_PREFIX = "base_model.model.model."
_PLAIN = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
}
"""Settings of an adapter that is just a pair of matrices per weight."""


@dataclass(frozen=True)
class LoraAdapter:
    """Low-rank updates for the weights of a `LlamaModel`.

    Attributes:
        pairs: A [rank, in] and B [out, rank] by the weight's name in `LlamaModel`.
        scaling: Factor of the product B A.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    scaling: float

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """Add the update of a weight, if it has one.

        Args:
            name: Name of the weight in `LlamaModel`.
            weight: float32 [out, in].
        """
        if name not in self.pairs:
            return weight
        down, up = self.pairs[name]
        return weight.addmm(up.float(), down.float(), alpha=self.scaling)


NO_ADAPTER = LoraAdapter({}, 1.0)


def read_adapter(folder: str | Path) -> LoraAdapter:
    """Read an adapter that PEFT saved for a `LlamaForCausalLM`.

    Raises:
        FileNotFoundError: The folder has no adapter.
        ValueError: It is not a plain LoRA adapter for a `LlamaForCausalLM`.
    """
    folder = Path(folder)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"The adapter in {folder} is of type {config.get('peft_type')!r}: only LoRA adapters "
            "can be merged."
        )
    for setting, plain in _PLAIN.items():
        # Unused settings may be absent, null or empty.
        if (config.get(setting) or plain) != plain:
            raise ValueError(
                f"The adapter in {folder} has {setting}={config[setting]!r}: only plain LoRA "
                "adapters can be merged."
            )
    tensors = load_file(folder / "adapter_model.safetensors")
    pairs = {}
    for name in list(tensors):
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        up = tensors.pop(f"{module}.lora_B.weight", None)
        if up is None or not module.startswith(_PREFIX):
            break
        pairs[f"{module.removeprefix(_PREFIX)}.weight"] = (tensors.pop(name), up)
    if tensors:
        raise ValueError(
            f"The adapter in {folder} has the tensor {next(iter(tensors))!r}, which belongs to no "
            "linear layer of a LlamaForCausalLM."
        )
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return LoraAdapter(pairs, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
