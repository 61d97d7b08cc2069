"""A mapper's config that names a huge network is refused before anything is allocated."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hf_token_compress
from hf_token_compress.mapper import load_mappers

from ..outcome import report

SIZES = (
    {"channels": 10**9},
    {"channels": 10**18},
    {"channels": 12_000, "blocks": 1},
    {"blocks": 300_000},
)
MEMORY, SECONDS = 14 * 2**30, 15
"""Limits of a process that loads one of them: address space in bytes, processor time."""

MUCH, LONG = 2**30, 5.0
"""What refusing may not take: bytes at the peak, processor seconds."""


def problems() -> Iterator[str]:
    """Load each in a process of its own with limited memory and time."""
    base = Path(hf_token_compress.__file__).parent / "tiny/qwen2_vl/mappers/grid"
    for options in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "mapper"
            shutil.copytree(base, folder)
            config = json.loads((folder / "config.json").read_text())
            config["network_options"].update(options)
            (folder / "config.json").write_text(json.dumps(config))
            if ended := _load_in_child(folder):
                yield f"{options}: {ended}"


def _load_in_child(folder: Path) -> str:
    """What is wrong with the way the load ended; nothing if it was refused at once."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        os.write(sending, _load(folder).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return f"killed after {SECONDS} s of processor time" if status else said


def _load(folder: Path) -> str:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    before, start = _peak(), time.process_time()
    try:
        load_mappers(str(folder))
        ended = "loaded"
    except ValueError:
        ended = ""
    except Exception as error:
        ended = type(error).__name__
    seconds = time.process_time() - start
    if (taken := _peak() - before) > MUCH:
        ended += f" {taken / 2**30:.1f} GiB allocated"
    if seconds > LONG:
        ended += f" {seconds:.0f} s of processor time"
    return ended.strip()


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    report(problems)
