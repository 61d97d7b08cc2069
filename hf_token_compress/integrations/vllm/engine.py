"""Refuse engine options with which answers would be wrong, or were never compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...config import TokenCompressionConfig
from .setting import KEY

_CHECKED_LOAD_FORMATS = (
    "auto",
    "fastsafetensors",
    "hf",
    "instanttensor",
    "mistral",
    "npcache",
    "pt",
    "runai_streamer",
    "safetensors",
)
"""Those with which vLLM calls the `load_weights` of a model."""


def check_engine(
    vllm_config: Any, config: TokenCompressionConfig, *, has_grid_positions: bool
) -> None:
    """Check the options of an engine.

    Args:
        vllm_config: vLLM's configuration.
        config: The setting of the server.
        has_grid_positions: As in `server_setting`.

    Raises:
        ValueError: One of them is refused; the sentence names all that are.
    """
    refused = list(_refused(vllm_config, config, has_grid_positions))
    if refused:
        raise ValueError(f"A compressed model cannot be served with {'; nor with '.join(refused)}.")


def _refused(
    vllm_config: Any, config: TokenCompressionConfig, has_grid_positions: bool
) -> Iterator[str]:
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    multimodal, compilation = model.multimodal_config, vllm_config.compilation_config
    if vllm_config.lora_config is not None:
        yield "LoRA, which would change the layer that scores: merge the adapter into the model"
    if vllm_config.speculative_config is not None:
        yield "speculative decoding, whose draft model would see the uncompressed positions"
    if parallel.pipeline_parallel_size > 1:
        yield "pipeline parallelism, which was not tested: use tensor parallelism"
    if parallel.prefill_context_parallel_size > 1 or parallel.decode_context_parallel_size > 1:
        yield "context parallelism, which was not tested: use tensor parallelism"
    if parallel.use_ubatching:
        yield "micro-batches (enable_dbo or ubatch_size)"
    if vllm_config.ec_transfer_config is not None or multimodal.mm_encoder_only:
        yield "a disaggregated encoder, which has no decoder layer to score with"
    if vllm_config.kv_transfer_config is not None:
        yield (
            "a KV connector (kv_transfer_config or kv_offloading_size), whose blocks may be of "
            "another mapper"
        )
    if multimodal.enable_mm_embeds or model.enable_prompt_embeds:
        yield "embeddings as inputs (enable_mm_embeds or enable_prompt_embeds)"
    if multimodal.video_pruning_rate:
        yield "vLLM's own video pruning (video_pruning_rate): choose one of the two"
    if compilation.cudagraph_mm_encoder:
        yield "CUDA graphs of the encoder (cudagraph_mm_encoder)"
    mode = compilation.cudagraph_mode
    if has_grid_positions and mode is not None and mode.mixed_mode().name == "FULL":
        yield "full CUDA graphs of prefill (cudagraph_mode FULL): use FULL_AND_PIECEWISE"
    if has_grid_positions and mode is not None and mode.decode_mode().name == "FULL":
        # A visual token that is a chunk of its own would be taken for a token that was generated.
        scheduler = vllm_config.scheduler_config
        tokens = scheduler.max_num_scheduled_tokens or scheduler.max_num_batched_tokens
        if scheduler.max_num_seqs >= tokens or scheduler.long_prefill_token_threshold == 1:
            yield (
                "chunks of one token (max_num_seqs as large as max_num_batched_tokens, or "
                "long_prefill_token_threshold=1) in full CUDA graphs: raise max_num_batched_tokens"
            )
    load_format = vllm_config.load_config.load_format
    if config.scorer_name == "mapper" and load_format not in _CHECKED_LOAD_FORMATS:
        yield (
            f"a mapper and load_format={load_format!r}, which does not show whether the mapper was "
            "trained for these weights: use 'auto', or another scorer"
        )
    if KEY in (multimodal.mm_processor_kwargs or {}):
        yield f"{KEY} in the server's mm_processor_kwargs: put it into hf_overrides"
    text = model.hf_text_config
    if getattr(text, "use_sliding_window", False):
        yield "a sliding window"
