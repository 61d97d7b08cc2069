"""Random tiny Qwen4-Exp models: Qwen3.5 with attention that chooses blocks, here all of them."""

from __future__ import annotations

from .qwen3_5_moe import Family as Qwen3_5Moe


class Family(Qwen3_5Moe):
    architecture = "Qwen4Exp"
    since = "5.24.0"
    text_options = {
        **Qwen3_5Moe.text_options,
        "hc_count": 2,
        "hc_lowrank": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 512,
        "indexer_compress_ratio": 4,
    }
