"""What vLLM finds through the entry point group `vllm.general_plugins`.

vLLM calls `register` in every process, whatever it serves, so it only names model classes. They are
imported when `hf_overrides` chooses one; the architectures of vLLM itself stay as they are.
"""

from __future__ import annotations

ARCHITECTURES = {
    "CompressedLlavaOnevisionForConditionalGeneration": "llava_onevision",
    "CompressedQwen2VLForConditionalGeneration": "qwen2_vl",
    "CompressedQwen25VLForConditionalGeneration": "qwen2_5_vl",
}
"""For each architecture that can be served, the module of this package that has its class."""


def register() -> None:
    """Name the compressed architectures to vLLM."""
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for name, module in ARCHITECTURES.items():
        # vLLM may load plugins several times in a process.
        if name not in known:
            ModelRegistry.register_model(name, f"{__name__}.{module}:{name}")
