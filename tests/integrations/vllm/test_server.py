"""The OpenAI-compatible server with two tensor-parallel ranks, on one node and on two.

Two nodes are two processes on loopback here. The engine runs in processes of its own.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from matrix import full_only
from PIL import Image
from vllm_runs import (
    NEW_TOKENS,
    Answer,
    Ask,
    Reference,
    checkpoint,
    image,
    random_mappers,
    video,
)

from hf_token_compress import TokenCompressionConfig

FPS = 1.0  # of frames that are sent one by one
QUESTIONS = ("What is left of the dog?", "Which colour is the guitar?", "How many fish are there?")
IMAGES = [image(seed, 2 + seed % 2, 2) for seed in range(6)]
VISUALS: list[dict[str, Any]] = [
    *({"images": (own,)} for own in IMAGES),
    {"images": (IMAGES[0], IMAGES[1])},
    {"images": (IMAGES[2], IMAGES[2])},
    {"videos": (video(0),)},
    {"images": (IMAGES[3],), "videos": (video(1),)},
]
ASKS = [Ask(QUESTIONS[number % 3], **own) for number, own in enumerate(VISUALS)]
CHANGES = (
    None,
    {"retention_ratio": 0.2, "min_visual_tokens": 0},
    {"max_visual_tokens": 9, "selection": "diverse"},
)
STARTS_WITHIN = 600
LOAD_SECONDS = float(os.environ.get("VLLM_LOAD_SECONDS", "8"))
"""How long each half of the load lasts."""


@dataclass
class Server:
    address: str
    processes: list[subprocess.Popen[bytes]]
    reference: Reference
    log: Path
    answered: dict[Any, Answer] = field(default_factory=dict)
    sent_again: list[Ask] = field(default_factory=list)

    @property
    def cache_misses(self) -> int:
        """How often the engine missed an image that its front end took for cached.

        Where a client hangs up before its image reached the engine, vLLM answers the next prompt
        with that image by an error, once, and counts on clients to send it again.
        """
        return self.log.read_text().count("cache drift")

    def answer(self, ask: Ask, changes: Any = None) -> Answer:
        """What Transformers answers."""
        if self.reference.model.config.model_type == "qwen2_5_vl":
            ask = replace(ask, fps=FPS)
        key = (ask.question, *map(id, ask.images + ask.videos), json.dumps(changes))
        if key not in self.answered:
            self.answered[key] = self.reference.answer(ask, changes)
        return self.answered[key]

    def ask(self, ask: Ask, timeout: float = 120, changes: Any = None) -> dict[str, Any]:
        """The first choice of a chat completion, and its usage."""
        content: list[dict[str, Any]] = []
        for own in ask.images:
            url = "data:image/png;base64," + _png(own)
            content.append({"type": "image_url", "image_url": {"url": url}})
        for frames in ask.videos:
            url = "data:video/jpeg;base64," + ",".join(map(_png, map(Image.fromarray, frames)))
            content.append({"type": "video_url", "video_url": {"url": url}})
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
        address = f"{self.address}/v1/chat/completions"
        reply = requests.post(address, json=body, timeout=timeout)
        while reply.status_code == 500 and len(self.sent_again) < self.cache_misses:
            self.sent_again.append(ask)
            reply = requests.post(address, json=body, timeout=timeout)
        assert reply.status_code < 500, reply.text
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        return {**found["choices"][0], "prompt_tokens": found["usage"]["prompt_tokens"]}

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = requests.get(f"{self.address}/metrics", timeout=30).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))

    def holds(self) -> tuple[int, int]:
        """Bytes and open files of all processes."""
        memory = files = 0
        for process in self.processes:
            own = psutil.Process(process.pid)
            for one in (own, *own.children(recursive=True)):
                memory += one.memory_info().rss
                files += one.num_fds()
        return memory, files


def _png(own: Image.Image) -> str:
    file = io.BytesIO()
    own.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@pytest.fixture(
    scope="module",
    params=[
        (2, "gated_fusion"),
        (1, "mapper"),
        full_only((1, "gated_fusion")),
        full_only((2, "mapper")),
    ],
    ids=lambda own: f"{own[0]}-{own[1]}",
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    nodes, scorer = request.param
    model_folder = tmp_path_factory.mktemp("model")
    if scorer == "mapper":
        architecture = "CompressedLlavaOnevisionForConditionalGeneration"
        folder = checkpoint("random-llava-onevision", model_folder)
        mappers = random_mappers(folder, tmp_path_factory.mktemp("mappers"))
        config = TokenCompressionConfig(mapper=str(mappers), position_ids="compact")
    else:
        architecture = "CompressedQwen25VLForConditionalGeneration"
        folder = checkpoint("random-qwen2_5-vl", model_folder)
        config = TokenCompressionConfig(retention_ratio=0.4)
    overrides = {"architectures": [architecture], "token_compression": config.to_dict()}
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder)),
        *("--served-model-name", "compressed", "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "1024", "--block-size", "32", "--max-num-batched-tokens", "64"),
        # Full after a few prompts, so that what caches hold is not taken for a leak.
        *("--mm-processor-cache-gb", "0.05", "--num-gpu-blocks-override", "160"),
        *("--tensor-parallel-size", "2", "--hf-overrides", json.dumps(overrides)),
        "--trust-request-mm-kwargs",
    ]
    own_arguments = [["--host", "127.0.0.1", "--port", str(port)]]
    if nodes == 2:
        master = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        own_arguments = [
            [*own_arguments[0], *master, "--node-rank", "0"],
            ["--headless", *master, "--node-rank", "1"],
        ]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    logs = tmp_path_factory.mktemp("logs")
    processes = []
    for rank, own in enumerate(own_arguments):
        with (logs / f"{rank}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [*command, *own], env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            )
    reference = Reference(folder, config)
    found = Server(f"http://127.0.0.1:{port}", processes, reference, logs / "0.log")
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


def assert_tokens(found: list[int], expected: Answer) -> None:
    """The same tokens, unless two of them were as likely where the answers part."""
    steps = zip(found, expected.tokens, expected.log_probabilities, strict=True)
    for own, other, likely in steps:
        if own != other:
            assert likely[other] - likely[own] < 2e-5, (found, expected.tokens)
            return


def test_answers_and_counters(server: Server) -> None:
    before, after, prompt = (
        "hf_token_compress:visual_tokens_before_total",
        "hf_token_compress:visual_tokens_after_total",
        "vllm:prompt_tokens_total",
    )
    start = {name: server.metric(name) for name in (before, after, prompt)}
    kept = whole = length = 0
    for ask in ASKS:
        expected, uncompressed = server.answer(ask), server.answer(ask, 1.0)
        found = server.ask(ask)
        assert_tokens(found["token_ids"], expected)
        assert found["prompt_tokens"] == expected.prompt_length
        kept += sum(map(len, expected.kept))
        whole += sum(map(len, uncompressed.kept))
        length += expected.prompt_length
    assert kept < whole
    assert server.metric(before) - start[before] == whole
    assert server.metric(after) - start[after] == kept
    assert server.metric(prompt) - start[prompt] == length


def test_a_request_of_its_own(server: Server) -> None:
    for changes in CHANGES:
        found = server.ask(ASKS[0], changes=changes)
        assert_tokens(found["token_ids"], server.answer(ASKS[0], changes))
    with pytest.raises(requests.HTTPError) as caught:
        server.ask(ASKS[0], changes={"scorer": "random"})
    assert caught.value.response.status_code == 400
    assert "A request cannot change" in caught.value.response.text


def test_load(server: Server) -> None:
    """Clients repeat prompts, send new ones with settings of their own, and hang up."""

    def loaded(seed: int) -> list[tuple[Ask, Any, list[int]]]:
        """What one client asked, and the answers."""
        rng = random.Random(seed)
        answers: list[tuple[Ask, Any, list[int]]] = []
        end = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < end:
            ask, changes = rng.choice(ASKS), rng.choice(CHANGES)
            chance = rng.random()
            if chance < 0.2:
                # The client hangs up, which cancels the request.
                with suppress(requests.Timeout):
                    server.ask(ask, timeout=rng.choice([0.005, 0.02, 0.1]), changes=changes)
                continue
            if chance < 0.5:
                ask = replace(ask, question=f"{ask.question} {rng.randrange(10**6)}")
            answers.append((ask, changes, server.ask(ask, changes=changes)["token_ids"]))
        return answers

    held, answers = [], []
    for half in range(2):
        with ThreadPoolExecutor(4) as pool:
            clients = list(pool.map(loaded, range(4 * half, 4 * half + 4)))
        assert all(clients)
        answers += [own for client in clients for own in client]
        _wait_until_idle(server)
        held.append(server.holds())
    # Nothing grows with the number of requests.
    (memory, files), (memory_after, files_after) = held
    print(f"{len(answers)} answers, {len(server.sent_again)} prompts sent again, held: {held}")
    assert memory_after - memory < 128 * 2**20  # what 100 prompts hold as pixels is more
    assert files_after - files < 16
    assert all(process.poll() is None for process in server.processes)
    # Repeated prompts all, of new ones some: Transformers takes longer.
    new = [own for own in answers if own[0] not in ASKS]
    for ask, changes, tokens in [own for own in answers if own[0] in ASKS] + new[:200]:
        assert_tokens(tokens, server.answer(ask, changes))


def _wait_until_idle(server: Server) -> None:
    deadline = time.monotonic() + 30
    while server.metric("vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert server.metric("vllm:num_requests_running") == 0
    assert server.metric("vllm:num_requests_waiting") == 0
    assert server.metric("vllm:kv_cache_usage_perc") == 0
