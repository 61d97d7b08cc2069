"""What vLLM cannot serve compressed is refused at start, in one sentence."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm
from errors import one_sentence
from vllm.config import CUDAGraphMode
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_runs import LARGEST_STEP, checkpoint, engine_options, random_mappers

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.integrations.vllm import ARCHITECTURES
from hf_token_compress.integrations.vllm.engine import check_engine
from hf_token_compress.integrations.vllm.setting import (
    make_scorer,
    request_setting,
    server_setting,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op`:FutureWarning")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"enable_lora": True}, "LoRA"),
        ({"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}, "pipeline"),
        ({"video_pruning_rate": 0.5}, "video_pruning_rate"),
        ({"enable_mm_embeds": True}, "embeddings"),
        ({"compilation_config": {"cudagraph_mm_encoder": True}}, "CUDA graphs of the encoder"),
        ({"mm_processor_kwargs": {"token_compression": 0.5}}, "hf_overrides"),
        (
            {
                "ec_transfer_config": {
                    "ec_connector": "ECExampleConnector",
                    "ec_role": "ec_producer",
                }
            },
            "disaggregated",
        ),
        (
            {
                "kv_transfer_config": {
                    "kv_connector": "ExampleConnector",
                    "kv_role": "kv_both",
                }
            },
            "KV connector",
        ),
    ],
    ids=[
        *("lora", "pipeline", "pruning", "embeddings", "graphs", "processor", "disaggregated"),
        "connector",
    ],
)
def test_engine_options(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = checkpoint("tiny-qwen2-vl-video", tmp_path)
    stock = "Qwen2VLForConditionalGeneration"
    arguments = engine_options(folder, stock, 0.5)
    mapper = TokenCompressionConfig(mapper="tiny-qwen2-vl-video")
    engine = EngineArgs(**arguments).create_engine_config()
    check_engine(engine, mapper, has_grid_positions=True)
    engine = EngineArgs(**arguments, **options).create_engine_config()
    with one_sentence(ValueError, words):
        check_engine(engine, mapper, has_grid_positions=True)


def test_weights_that_nobody_compares_with_a_mapper(tmp_path: Path) -> None:
    folder = checkpoint("tiny-qwen2-vl-video", tmp_path)
    arguments = engine_options(folder, "Qwen2VLForConditionalGeneration", 0.5)
    engine = EngineArgs(**arguments, load_format="dummy").create_engine_config()
    mapper = TokenCompressionConfig(mapper="tiny-qwen2-vl-video")
    check_engine(engine, TokenCompressionConfig(), has_grid_positions=True)
    with one_sentence(ValueError, "a mapper and load_format='dummy'"):
        check_engine(engine, mapper, has_grid_positions=True)


def test_graphs_of_decoding_that_may_hold_a_chunk_of_an_image(tmp_path: Path) -> None:
    folder = checkpoint("tiny-qwen2-vl-video", tmp_path)
    arguments = engine_options(folder, "Qwen2VLForConditionalGeneration", 0.5)
    for options, refused in (({}, False), ({"max_num_seqs": LARGEST_STEP}, True)):
        engine = EngineArgs(**(arguments | options)).create_engine_config()
        # On a CPU there are none.
        engine.compilation_config.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
        check_engine(engine, TokenCompressionConfig(), has_grid_positions=False)
        with one_sentence(ValueError, "chunks of one token") if refused else nullcontext():
            check_engine(engine, TokenCompressionConfig(), has_grid_positions=True)


def test_videos_that_no_mapper_scores(tmp_path: Path) -> None:
    folder = checkpoint("random-llava-onevision", tmp_path)
    mappers = random_mappers(folder, tmp_path / "mappers")
    for mapper, served in ((mappers, {"image", "video"}), (mappers / "image", {"image"})):
        setting = {"mapper": str(mapper), "position_ids": "compact"}
        architecture = "CompressedLlavaOnevisionForConditionalGeneration"
        engine = EngineArgs(**engine_options(folder, architecture, setting)).create_engine_config()
        info = MULTIMODAL_REGISTRY.create_processor(engine.model_config).info
        assert info.allowed_mm_limits.keys() == served
        with nullcontext() if "video" in served else one_sentence(ValueError, "has videos"):
            info.validate_num_items("video", 1)


@pytest.mark.parametrize(
    ("saved", "has_grid_positions", "words"),
    [
        (None, True, "needs token_compression"),
        ({"selection": "top_k", "top_p": 0.9}, True, "top_p"),
        ({"pad_to_multiple_of": 64}, True, "does not pad prompts"),
        ({"position_ids": "grid"}, True, "'original' or 'compact'"),
        ({"position_ids": "original"}, False, "use 'compact'"),
        ({"retention_ratoi": 0.5}, True, "retention_ratio"),
    ],
)
def test_settings(saved: Any, has_grid_positions: bool, words: str) -> None:
    config = SimpleNamespace(model_type="some_model")
    if saved is not None:
        config.token_compression = saved
    with one_sentence(ValueError, words):
        server_setting(config, has_grid_positions=has_grid_positions)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scorer": "vispruner", "selection": "top_k"}, "vision_attention"),
        ({"scorer": "attention", "scorer_options": {"scoring_depth": 2}}, "scoring_depth"),
    ],
)
def test_scorers(changes: dict[str, Any], words: str) -> None:
    config = server_setting(
        SimpleNamespace(model_type="some_model", token_compression=changes),
        has_grid_positions=True,
    )
    with one_sentence(ValueError, words):
        make_scorer(config)


def test_a_selection_that_the_scorer_does_not_allow() -> None:
    server = TokenCompressionConfig(scorer="uniform")
    scorer = make_scorer(server)
    assert request_setting(server, 0.2, lambda: scorer).retention_ratio == 0.2
    with one_sentence(ValueError, "cannot be used with selection='diverse'"):
        request_setting(server, {"selection": "diverse"}, lambda: scorer)


def test_a_version_that_was_not_tested() -> None:
    code = "import vllm; vllm.__version__ = '0.33.1'; import hf_token_compress.integrations.vllm"
    module = next(iter(ARCHITECTURES.values()))
    done = subprocess.run(
        [sys.executable, "-c", f"{code}.{module}"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError")]
    assert "was tested with vLLM 0.32" in message
    assert vllm.__version__.startswith("0.32")


def test_stock_architectures_stay() -> None:
    from vllm import ModelRegistry
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    known = ModelRegistry.models
    for name, module in ARCHITECTURES.items():
        assert "hf_token_compress" in known[name].module_name
        assert known[name].class_name == name
        stock = {own.module_name for key, own in known.items() if key.startswith("Qwen2VLFor")}
        assert not any("hf_token_compress" in own for own in stock), module
