"""A loopback Hub with tiny models under the names that the documentation uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub_server import Hub, Repository, files_in, hub_server

from hf_token_compress.tiny import resolve_mapper, resolve_model

STAND_INS = {
    "Qwen/Qwen2-VL-7B-Instruct": resolve_model("tiny-qwen2-vl"),
    "Qwen/Qwen2.5-VL-3B-Instruct": resolve_model("tiny-qwen2-vl"),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": resolve_model("tiny-llava-onevision"),
    "Efficient-Large-Model/VILA1.5-3b": resolve_model("tiny-vila"),
    "someone/qwen2-vl-7b-token-mapper": resolve_mapper("tiny-qwen2-vl"),
}


@contextmanager
def docs_hub() -> Iterator[Hub]:
    """The server, with every stand-in in its place."""
    with hub_server() as hub:
        for name, folder in STAND_INS.items():
            files = files_in(Path(folder))
            # A model's folder holds its mappers too.
            own = {file: content for file, content in files.items() if "mappers/" not in file}
            hub.repositories[name] = Repository()
            hub.repositories[name].commit(own)
        yield hub
