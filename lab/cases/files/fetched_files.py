"""Loading fetches a mapper's two files alone, and nothing where the caller forbids downloads.

A model that was saved with a local mapper loads elsewhere, or its error names the way out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..outcome import failure, report

SUPPORT = Path(__file__).parents[3] / "tests" / "support"
MAPPER_FILES = {"config.json", "model.safetensors"}


def problems() -> Iterator[str]:
    """Serve a mapper and an ordinary model from a local hub, and see what is asked for."""
    sys.path.insert(0, str(SUPPORT))
    from hub_server import Repository, hub_server

    with hub_server() as hub, tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ.update(
            HF_ENDPOINT=hub.address,
            HF_HOME=str(work / "home"),
            HF_HUB_OFFLINE="0",
            HF_HUB_DISABLE_XET="1",
            HF_HUB_DISABLE_TELEMETRY="1",
        )
        # After the address of the hub is set.
        import hf_token_compress

        mapper = Path(hf_token_compress.__file__).parent / "tiny/qwen2_vl/mappers/grid"
        shards = {f"model-{n}-of-4.safetensors": os.urandom(10**6) for n in range(1, 5)}
        repositories = {
            "other/mapper": {file: (mapper / file).read_bytes() for file in MAPPER_FILES},
            "Qwen/A-7B": {"config.json": b'{"model_type": "qwen2_vl"}', **shards},
        }
        for repository, files in repositories.items():
            hub.repositories[repository] = Repository()
            hub.repositories[repository].commit(files)

        def fetched(load: Callable[[], Any]) -> tuple[str, list[str]]:
            """How a load ended, and the files that it fetched."""
            seen = len(hub.requests)
            try:
                load()
                ended = ""
            except Exception as error:
                ended = failure(error)
            paths = [path for method, path in hub.requests[seen:] if method == "GET"]
            return ended, [path.rpartition("/")[2] for path in paths if "/resolve/" in path]

        yield from _check(work, mapper, fetched)


def _check(
    work: Path, mapper: Path, fetched: Callable[[Callable[[], Any]], tuple[str, list[str]]]
) -> Iterator[str]:
    from transformers import AutoModelForImageTextToText

    from hf_token_compress import load_tiny
    from hf_token_compress.mapper import load_mappers

    _, files = fetched(lambda: load_mappers("Qwen/A-7B"))
    if more := sorted(set(files) - MAPPER_FILES):
        yield f"a model named as mapper: {', '.join(more)} fetched before it is refused"

    folder = work / "model"
    model, _ = load_tiny("qwen2-vl")
    model.save_pretrained(folder)

    def name_mapper(name: str) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["token_compression"] = {"mapper": name}
        (folder / "config.json").write_text(json.dumps(config))

    name_mapper("other/mapper")
    _, files = fetched(
        lambda: AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    )
    if files:
        yield f"local_files_only=True: {', '.join(files)} fetched"

    name_mapper("/srv/elsewhere/mapper")
    ended, _ = fetched(lambda: AutoModelForImageTextToText.from_pretrained(folder))
    if ended and "token_compression" not in ended:
        yield f"a mapper's folder that is not here: {ended}"

    model, _ = load_tiny("qwen2-vl", token_compression=str(mapper))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.save_pretrained(work / "saved")
    if not any("save_mapper=True" in str(warning.message) for warning in caught):
        yield f"saved with the path {mapper.name!r} of this machine without a warning"
    model.save_pretrained(work / "whole", save_mapper=True)
    (work / "whole").rename(work / "moved")
    ended, files = fetched(lambda: AutoModelForImageTextToText.from_pretrained(work / "moved"))
    if ended or files:
        yield f"saved with its mapper and moved: {ended or files}"


if __name__ == "__main__":
    report(problems)
