"""The folder that `collect` writes and `train` reads: shards of mapper inputs and relevance.

    collection.json           model, dtype, options, inputs and data; written first
    shard-00000.safetensors   inputs, relevance and grids of samples 0 to 63
    …
    index.json                every shard and the skipped samples; written last

A shard holds a fixed range of sample numbers, whichever process writes it, and gets its name only
when it is complete. So any number of processes and machines can share a folder, a stopped run can
continue, and shards of several machines can be copied into one folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..mapper import MapperInput, ModelIdentity
from ..mapper.inputs import INPUTS
from ..writing import write_json, write_whole

COLLECTION_FILE = "collection.json"
INDEX_FILE = "index.json"
FORMAT = 2
_READABLE_FORMATS = (1, FORMAT)
_INPUTS_OF_FORMAT_1 = ("attention",)
_CONTENT_KEY = "shard"
_SHARD_NAME = re.compile(r"shard-\d{5,}\.safetensors")
_NO_DIGEST = "0" * 64
_KEYS = {
    COLLECTION_FILE: {"base_model": dict, "options": dict},
    INDEX_FILE: {"shards": dict, "skipped": dict},
}
_REPAIR = {
    COLLECTION_FILE: (
        "delete that file and run the same `collect` again, which keeps all finished shards"
    ),
    INDEX_FILE: "delete that file and run the same `collect` again, which writes it anew",
}


@dataclass(frozen=True)
class CollectedSample:
    """One prompt and the relevance of its visual tokens.

    Attributes:
        number: Number of the sample in its source.
        attention: float16 [2, heads, N], as in `MapperInput`.
        relevance: float32 [N].
        grids: int64 [frames, rows, columns] each, as in `MapperInput`.
        text: float32 [2, N], as in `MapperInput`; None in format 1.
        embedding: float32 [2, N], as in `MapperInput`; None in format 1.
    """

    number: int
    attention: Tensor
    relevance: Tensor
    grids: tuple[Tensor, ...]
    text: Tensor | None = None
    embedding: Tensor | None = None

    @classmethod
    def of(cls, number: int, seen: MapperInput, relevance: Tensor) -> CollectedSample:
        """One prompt as a mapper sees it, on the CPU."""
        seen = seen.to("cpu")
        attention = seen.attention.half()
        return cls(number, attention, relevance, seen.grids, seen.text, seen.embedding)

    def mapper_input(self) -> MapperInput:
        """The inputs of a mapper."""
        return MapperInput(self.attention.float(), self.grids, self.text, self.embedding)


@dataclass(frozen=True)
class SkippedSample:
    """One sample that was not collected: a reason to count by, and the error or circumstance."""

    number: int
    reason: str
    detail: str = ""


@dataclass
class Shard:
    """The samples of one range of numbers."""

    samples: list[CollectedSample] = field(default_factory=list)
    skipped: list[SkippedSample] = field(default_factory=list)


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:05d}.safetensors"


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard; readers find the whole file or none."""
    tensors: dict[str, Tensor] = {}
    for sample in shard.samples:
        tensors[f"{sample.number}.attention"] = sample.attention.half().cpu().contiguous()
        tensors[f"{sample.number}.relevance"] = sample.relevance.float().cpu().contiguous()
        for name in ("text", "embedding"):
            if (values := getattr(sample, name)) is not None:
                tensors[f"{sample.number}.{name}"] = values.float().cpu().contiguous()
        for index, grid in enumerate(sample.grids):
            tensors[f"{sample.number}.grid.{index}"] = grid.to("cpu", torch.int32).contiguous()
    numbers = [sample.number for sample in shard.samples]
    skipped = [vars(sample) for sample in shard.skipped]
    # A single entry: safetensors writes several in any order, so equal shards would differ.
    content = json.dumps({"sha256": _NO_DIGEST, "numbers": numbers, "skipped": skipped})
    unsigned = save(tensors, {_CONTENT_KEY: content})
    digest = hashlib.sha256(unsigned).hexdigest()
    write_whole({path: unsigned.replace(_NO_DIGEST.encode(), digest.encode(), 1)})


def _check_digest(path: Path, digest: str) -> None:
    """Raise a ValueError unless the file has the SHA-256 that it names, taken with zeros there."""
    unsigned = path.read_bytes().replace(digest.encode(), _NO_DIGEST.encode(), 1)
    if hashlib.sha256(unsigned).hexdigest() != digest:
        raise ValueError("its SHA-256 is another")


def shard_summary(path: Path) -> tuple[list[int], list[SkippedSample]]:
    """Read the numbers of the samples in a shard, and its skipped samples.

    Raises:
        ValueError: The file is damaged or not a shard.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()[_CONTENT_KEY])
        summary = content["numbers"], [SkippedSample(**item) for item in content["skipped"]]
        if "sha256" in content:  # not in shards of earlier versions
            _check_digest(path, content["sha256"])
        return summary
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The shard {path.name} is damaged ({error}): run `collect` again, which only "
            "computes missing and damaged shards."
        ) from error


def write_index(folder: Path, shards: Sequence[Path]) -> None:
    """Write the index of a finished collection."""
    summaries = {path.name: shard_summary(path) for path in shards}
    skipped = [item for _, items in summaries.values() for item in items]
    index = {
        "format": FORMAT,
        "shards": {name: len(numbers) for name, (numbers, _) in summaries.items()},
        "samples": sum(len(numbers) for numbers, _ in summaries.values()),
        "skipped": dict(sorted(Counter(item.reason for item in skipped).items())),
        "skipped_samples": [vars(item) for item in skipped],
    }
    write_json(folder / INDEX_FILE, index)


class ShardFolder(torch.utils.data.Dataset[CollectedSample]):
    """A finished collection, read sample by sample from memory-mapped files.

    Args:
        folder: The folder that `collect` wrote.

    Attributes:
        collection: The content of collection.json.
        index: The content of index.json.

    Raises:
        FileNotFoundError: The folder has no collection, or the collection is not finished.
        ValueError: A shard is missing, or a file is damaged or has another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.collection = read_collection_file(self.folder, COLLECTION_FILE)
        self.index = read_collection_file(self.folder, INDEX_FILE)
        if self.index.get("format") not in _READABLE_FORMATS:
            readable = " and ".join(map(str, _READABLE_FORMATS))
            raise ValueError(
                f"The collection in {str(folder)!r} has the format {self.index.get('format')!r}, "
                f"but this version of hf_token_compress reads {readable}: collect it again."
            )
        self._entries: list[tuple[Path, int, int]] = []
        for name in self.index.get("shards", ()):
            if not _SHARD_NAME.fullmatch(name):
                raise ValueError(
                    f"{INDEX_FILE} of the collection in {str(folder)!r} is damaged (it names "
                    f"{name!r}, which is no shard): {_REPAIR[INDEX_FILE]}."
                )
            path = self.folder / name
            if not path.is_file():
                raise ValueError(
                    f"The collection in {str(folder)!r} lacks the shard {name}: run `collect` "
                    "again, which only computes missing shards."
                )
            numbers, _ = shard_summary(path)
            written = path.stat().st_mtime_ns
            self._entries.extend((path, written, number) for number in numbers)

    @property
    def identity(self) -> ModelIdentity:
        """The model of the collection."""
        return ModelIdentity.from_dict(self.collection["base_model"])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The groups of input channels that its samples hold."""
        return collected_inputs(self.collection)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> CollectedSample:
        path, written, number = self._entries[index]
        file = _opened(path, written)
        grids: list[Tensor] = []
        while f"{number}.grid.{len(grids)}" in file.keys():  # noqa: SIM118 - no mapping
            grids.append(file.get_tensor(f"{number}.grid.{len(grids)}").long())
        relevance = file.get_tensor(f"{number}.relevance")
        if not relevance.isfinite().all():
            raise ValueError(
                f"The relevance of sample {number} in {path.name} holds NaN or infinite values: "
                "delete that shard and collect again."
            )
        missing = [name for name in self.inputs if f"{number}.{name}" not in file.keys()]  # noqa: SIM118
        if missing:
            raise ValueError(
                f"Sample {number} in {path.name} has no {' and no '.join(missing)}: delete that "
                "shard and collect again."
            )
        seen = {name: file.get_tensor(f"{number}.{name}") for name in self.inputs}
        return CollectedSample(number, relevance=relevance, grids=tuple(grids), **seen)


def collected_inputs(collection: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups of input channels in the shards of a collection, of its collection.json."""
    return tuple(collection.get("inputs", _INPUTS_OF_FORMAT_1))


@lru_cache(maxsize=512)
def _opened(path: Path, written: int) -> Any:
    """A memory-mapped shard; `written` keeps a rewritten shard apart from the old one."""
    return safe_open(path, framework="pt").__enter__()


def read_collection_file(folder: Path, name: str) -> dict[str, Any]:
    """The content of collection.json or index.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    path = folder / name
    if not path.is_file():
        unfinished = name == INDEX_FILE
        hint = "the collection is not finished" if unfinished else "it is not a collection"
        raise FileNotFoundError(
            f"The folder {str(folder)!r} has no {name}, so {hint}: run `hf-token-compress collect` "
            "on it, which continues a started collection."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        for key, kind in _KEYS[name].items():
            if not isinstance(content.get(key), kind):
                raise ValueError(f"it has no {key}")
        if name == COLLECTION_FILE:
            _check_inputs(content.get("inputs", list(_INPUTS_OF_FORMAT_1)))
    except ValueError as error:
        raise ValueError(
            f"{name} of the collection in {str(folder)!r} is damaged ({error}): {_REPAIR[name]}."
        ) from error
    return content


def _check_inputs(inputs: object) -> None:
    """Raise a ValueError unless a collection may name these groups of input channels."""
    if (
        not isinstance(inputs, list)
        or "attention" not in inputs
        or not all(name in INPUTS for name in inputs)
    ):
        raise ValueError(f"its inputs cannot be {inputs!r}")
