"""The OpenAI-compatible server on two nodes, which are two processes on loopback here.

Its tensor-parallel ranks are one on each node, and its engine runs in processes of its own.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from vllm_runs import NEW_TOKENS, Ask, Reference, checkpoint, image

from hf_token_compress import TokenCompressionConfig

CONFIG = TokenCompressionConfig(
    scorer="attention", selection="top_k", retention_ratio=0.4, position_ids="compact"
)
QUESTIONS = ("What is left of the dog?", "Which colour is the guitar?", "How many fish are there?")
ASKS = [Ask(QUESTIONS[seed % 3], images=(image(seed, 2 + seed % 2, 2),)) for seed in range(6)]
STARTS_WITHIN, LOAD_SECONDS = 300, 15


@dataclass
class Server:
    address: str
    processes: list[subprocess.Popen[bytes]]
    reference: Reference

    def ask(self, ask: Ask, timeout: float = 120, changes: Any = None) -> dict[str, Any]:
        """The first choice of a chat completion, and its usage."""
        content: list[dict[str, Any]] = []
        for own in ask.images:
            file = io.BytesIO()
            own.save(file, "PNG")
            url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
            content.append({"type": "image_url", "image_url": {"url": url}})
        content.append({"type": "text", "text": ask.question})
        body = {
            "model": "compressed",
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": NEW_TOKENS,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        if changes is not None:
            body["mm_processor_kwargs"] = {"token_compression": changes}
        reply = requests.post(f"{self.address}/v1/chat/completions", json=body, timeout=timeout)
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        return {**found["choices"][0], "prompt_tokens": found["usage"]["prompt_tokens"]}

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = requests.get(f"{self.address}/metrics", timeout=30).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))

    def memory(self) -> int:
        """Bytes that all processes hold."""
        total = 0
        for process in self.processes:
            own = psutil.Process(process.pid)
            total += sum(one.memory_info().rss for one in (own, *own.children(recursive=True)))
        return total


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = checkpoint("random-qwen2_5-vl", tmp_path_factory.mktemp("model"))
    overrides = {
        "architectures": ["CompressedQwen25VLForConditionalGeneration"],
        "token_compression": CONFIG.to_dict(),
    }
    port, master = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder)),
        *("--served-model-name", "compressed", "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "1024", "--block-size", "32", "--max-num-batched-tokens", "64"),
        *("--tensor-parallel-size", "2", "--nnodes", "2", "--master-addr", "127.0.0.1"),
        *("--master-port", str(master), "--hf-overrides", json.dumps(overrides)),
        "--trust-request-mm-kwargs",
    ]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    logs = tmp_path_factory.mktemp("logs")
    processes = []
    for rank, own in enumerate((["--host", "127.0.0.1", "--port", str(port)], ["--headless"])):
        with (logs / f"{rank}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [*command, "--node-rank", str(rank), *own],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    found = Server(f"http://127.0.0.1:{port}", processes, Reference(folder, CONFIG))
    try:
        _wait(found, logs)
        yield found
    finally:
        _stop(processes)


def _wait(server: Server, logs: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        with suppress(requests.RequestException):
            if requests.get(f"{server.address}/health", timeout=5).ok:
                return
        if any(process.poll() is not None for process in server.processes):
            break
        time.sleep(1)
    pytest.fail("\n".join(path.read_text()[-4000:] for path in sorted(logs.iterdir())))


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    children = [
        own for process in processes for own in psutil.Process(process.pid).children(recursive=True)
    ]
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
    for own in (*processes, *children):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            own.kill()


def test_answers_and_counters(server: Server) -> None:
    before, after, prompt = (
        "hf_token_compress:visual_tokens_before_total",
        "hf_token_compress:visual_tokens_after_total",
        "vllm:prompt_tokens_total",
    )
    start = {name: server.metric(name) for name in (before, after, prompt)}
    kept = whole = length = 0
    for ask in ASKS:
        expected, uncompressed = server.reference.answer(ask), server.reference.answer(ask, 1.0)
        found = server.ask(ask)
        assert found["token_ids"] == expected.tokens
        assert found["prompt_tokens"] == expected.prompt_length
        kept += len(expected.kept[0])
        whole += len(uncompressed.kept[0])
        length += expected.prompt_length
    assert kept < whole
    assert server.metric(before) - start[before] == whole
    assert server.metric(after) - start[after] == kept
    assert server.metric(prompt) - start[prompt] == length


def test_a_request_of_its_own(server: Server) -> None:
    changes = {"retention_ratio": 0.2, "min_visual_tokens": 0}
    expected = server.reference.answer(ASKS[0], changes)
    assert server.ask(ASKS[0], changes=changes)["token_ids"] == expected.tokens
    with pytest.raises(requests.HTTPError) as caught:
        server.ask(ASKS[0], changes={"scorer": "random"})
    assert caught.value.response.status_code == 400
    assert "A request cannot change scorer" in caught.value.response.text


def test_load(server: Server) -> None:
    expected = [server.reference.answer(ask).tokens for ask in ASKS]

    def loaded(seed: int) -> int:
        """Ask for a while from one client, and count right answers."""
        rng, right = random.Random(seed), 0
        end = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < end:
            number = rng.randrange(len(ASKS))
            if rng.random() < 0.2:
                # The client hangs up, which cancels the request.
                with suppress(requests.Timeout):
                    server.ask(ASKS[number], timeout=0.02)
                continue
            assert server.ask(ASKS[number])["token_ids"] == expected[number]
            right += 1
        return right

    used = []
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            assert min(pool.map(loaded, range(4))) > 0
        used.append(server.memory())
    # Nothing grows with the number of requests.
    assert used[1] - used[0] < 64 * 2**20
    deadline = time.monotonic() + 30
    while server.metric("vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert server.metric("vllm:num_requests_running") == 0
    assert server.metric("vllm:num_requests_waiting") == 0
    assert server.metric("vllm:kv_cache_usage_perc") == 0
    assert all(process.poll() is None for process in server.processes)
