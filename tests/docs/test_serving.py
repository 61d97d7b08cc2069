"""The servers of docs/serving.md answer over loopback, each request with its own answer."""

from __future__ import annotations

import base64
import io
import json
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from code_blocks import code_blocks
from matrix import full_only
from PIL import ExifTags, Image
from places import REPOSITORY

from hf_token_compress import load_tiny
from hf_token_compress.data.scenes import make_scene

for package in ("fastapi", "openai", "uvicorn"):
    pytest.importorskip(package)

BLOCKS = code_blocks(REPOSITORY / "docs" / "serving.md")
QUESTION = "What is at row 2, column 2?"


class Request(NamedTuple):
    """An image, and what is right for it."""

    image: Image.Image
    answer: str
    kept: int
    visual_tokens: int

    @property
    def encoded(self) -> str:
        """A file as cameras write it: on its side, with a tag that says so."""
        exif, file = Image.Exif(), io.BytesIO()
        exif[ExifTags.Base.Orientation] = 6
        self.image.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
        return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the first block saves, with a ratio at which answers change."""
    folder = tmp_path_factory.mktemp("serving")
    block = next(block for block in BLOCKS if block.language == "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(block.text.replace("0.25", "0.06"), {})
    return folder


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Images of several sizes, with the answers of the stock model to the prepared inputs."""
    from hf_token_compress import prepare_inputs
    from hf_token_compress.data.chat import encode, user_turn

    stock, processor = load_tiny("qwen2-vl")
    compressed, _ = load_tiny("qwen2-vl", token_compression={"retention_ratio": 0.06})
    found, whole = [], []
    for number in range(8):
        image = make_scene(number, 2 + number % 3, 4).image
        inputs = encode(processor, [user_turn(QUESTION, [image])])
        with torch.no_grad():
            prepared = prepare_inputs(compressed, **inputs)
        answers = []
        for given in (prepared, inputs):
            ids = stock.generate(**given, max_new_tokens=4, do_sample=False)
            new = ids[0, given["input_ids"].shape[1] :]
            answers.append(processor.decode(new, skip_special_tokens=True))
        before, after = (
            int((given["mm_token_type_ids"] == 1).sum()) for given in (inputs, prepared)
        )
        found.append(Request(image, answers[0], after, before))
        whole.append(answers[1])
    # The ratio is so low that answers without compression are others.
    assert sum(one.answer != other for one, other in zip(found, whole, strict=True)) > 2
    assert len({one.answer for one in found}) > 2
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port: int = taken.getsockname()[1]
    return port


def post(port: int, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://localhost:{port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def wait_for(port: int, alive: Callable[[], bool]) -> None:
    while alive():
        try:
            socket.create_connection(("localhost", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("The server ended.")


@contextmanager
def in_this_process(folder: Path, port: int) -> Iterator[None]:
    from transformers.cli.serve import Serve

    server = Serve(str(folder / "compressed"), port=port, device="cpu", non_blocking=True)
    try:
        yield
    finally:
        server.kill_server()


@contextmanager
def by_command(folder: Path, port: int) -> Iterator[None]:
    """The command of the documentation."""
    block = next(block for block in BLOCKS if block.language == "bash")
    words = [*shlex.split(block.text), "--device", "cpu"]
    words[0], words[words.index("8000")] = sys.executable, str(port)
    words[words.index("compressed")] = str(folder / "compressed")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, lambda: process.poll() is None)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("start", [in_this_process, full_only(by_command)])
def test_transformers_serve(start: Any, folder: Path, requests: list[Request]) -> None:
    port = free_port()

    def ask(request: Request) -> str:
        url = {"url": f"data:image/png;base64,{request.encoded}"}
        content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": QUESTION}]
        body = {
            "model": str(folder / "compressed"),
            "max_completion_tokens": 4,
            "messages": [{"role": "user", "content": content}],
        }
        choices = post(port, "/v1/chat/completions", body)["choices"]
        answer: str = choices[0]["message"]["content"]
        return answer

    with start(folder, port):
        wait_for(port, lambda: True)
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(ask, requests))
    assert answers == [request.answer for request in requests]


def test_a_function_of_ones_own(
    folder: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    block = next(block for block in BLOCKS if "FastAPI()" in block.text)
    monkeypatch.chdir(folder)
    # FastAPI looks for the annotations of a function in its module.
    names: dict[str, Any] = {"__name__": "server"}
    exec(compile(block.text, "server.py", "exec", dont_inherit=True), names)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(names["app"], port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()

    def ask(request: Request) -> tuple[str, int, int]:
        found = post(port, "/answer", {"image": request.encoded, "text": QUESTION})
        return found["answer"], found["kept"], found["visual_tokens"]

    try:
        wait_for(port, thread.is_alive)
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(ask, requests * 2))
    finally:
        server.should_exit = True
        thread.join()
    assert answers == [request[1:] for request in requests * 2]
