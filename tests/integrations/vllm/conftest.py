from __future__ import annotations

import os

import pytest

pytest.importorskip(
    "vllm", reason="vLLM is not installed: it has an environment of its own (see .ci/run)"
)

os.environ |= {
    "TORCH_COMPILE_DISABLE": "1",  # of helpers that vLLM compiles at the first request
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that tests can look inside
    "VLLM_NO_USAGE_STATS": "1",
}
