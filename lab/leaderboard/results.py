"""The right answers of all rows, small enough for the repository."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .rows import FULL_ROW, row_of
from .running import answers_file
from .subjects import SUBJECTS, Stream

Json = dict[str, Any]
RowKey = tuple[str, float]
"""Name of a row, and its retention ratio."""


@dataclass(frozen=True)
class Outcome:
    """The answers of one row to N questions.

    Attributes:
        right: 1 where the answer is right, 0 where it is wrong, NaN where there is none, [N].
        tokens: Visual tokens that the language model saw, on average.
    """

    right: npt.NDArray[np.float64]
    tokens: float


@dataclass(frozen=True)
class SubjectResults:
    """All answers about the N questions of one model and source.

    Attributes:
        model: Name of the model.
        source: Where the questions come from.
        kinds: Kind of each question, [N].
        images: Number of the image or clip of each question, [N].
        outcomes: The answers of each row and ratio; "full" is the uncompressed model.
    """

    model: str
    source: str
    kinds: npt.NDArray[np.str_]
    images: npt.NDArray[np.int64]
    outcomes: Mapping[RowKey, Outcome]

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.model} {self.source}"


def collected(folder: Path, stream: Stream) -> Json:
    """The answers of a run as JSON types; a right answer is a bit.

    Args:
        folder: Where the run wrote.
        stream: Which of its questions.

    Raises:
        OSError: A file cannot be read.
        ValueError: A score is neither 0 nor 1, or the answers are those of another stream.
    """
    found = []
    for subject in SUBJECTS:
        file = answers_file(folder, stream, subject)
        if file.exists():
            header, answers = _read(file)
            if header["data"]["stream"] != stream:
                raise ValueError(f"{str(file)!r} holds no answers of the stream {stream!r}.")
            own = {"model": subject.model, "source": subject.source, "data": header["data"]}
            found.append({**own, **_compact(answers, header["data"]["kinds"])})
    return {"stream": stream, "subjects": found}


def restored(results: Json) -> list[SubjectResults]:
    """What `collected` made, as arrays."""
    found = []
    for own in results["subjects"]:
        kinds = np.array([own["data"]["kinds"][kind] for kind in own["kinds"]], str)
        outcomes = {
            (name, float(ratio)): Outcome(_bits(one, len(kinds)), one["tokens"])
            for name, ratios in own["rows"].items()
            for ratio, one in ratios.items()
        }
        images = np.array(own["images"])
        found.append(SubjectResults(own["model"], own["source"], kinds, images, outcomes))
    return found


def _read(file: Path) -> tuple[Json, dict[RowKey, dict[int, Json]]]:
    """The header of an answers file, and for each row its answers by number of the question."""
    content = file.read_bytes()
    # A line that a killed run left unfinished does not count.
    first, *lines = content[: content.rfind(b"\n") + 1].splitlines()
    keys: dict[str, RowKey | None] = {}
    last: dict[RowKey, str] = {}
    found: dict[RowKey, dict[int, Json]] = {}
    for line in lines:
        batch = json.loads(line)
        key = batch["setting"]
        if key not in keys:
            # After the setting, a key has the digest of its mapper.
            setting, _ = json.JSONDecoder().raw_decode(key)
            keys[key] = row_of(setting)
        row = keys[key]
        if row is None:  # a setting that the leaderboard no longer has
            continue
        if last.setdefault(row, key) != key:  # a mapper that was trained again
            found.pop(row)
            last[row] = key
        found.setdefault(row, {}).update({own["number"]: own for own in batch["answers"]})
    return json.loads(first), found


def _compact(answers: Mapping[RowKey, Mapping[int, Json]], kinds: Sequence[str]) -> Json:
    full = answers.get((FULL_ROW, 1.0), {})
    numbers = sorted(full)
    images = {full[number]["visual"]: None for number in numbers}
    places = {visual: place for place, visual in enumerate(images)}
    rows: dict[str, Json] = {}
    for (name, ratio), own in answers.items():
        rows.setdefault(name, {})[str(ratio)] = _packed([own.get(number) for number in numbers])
    return {
        "kinds": [kinds.index(full[number]["kind"]) for number in numbers],
        "images": [places[full[number]["visual"]] for number in numbers],
        "rows": rows,
    }


def _packed(answers: Sequence[Json | None]) -> Json:
    """Right answers, and those that there are, as hexadecimal bits."""
    there = [own for own in answers if own is not None]
    if any(own["score"] not in (0.0, 1.0) for own in there):
        raise ValueError("An answer of the leaderboard is neither right nor wrong.")
    right = np.array([own is not None and own["score"] == 1.0 for own in answers], bool)
    asked = np.array([own is not None for own in answers], bool)
    tokens = sum(own["visual_tokens_after"] for own in there) / len(there)
    packed: Json = {"right": _hex(right), "count": len(there), "tokens": round(tokens, 2)}
    if not asked[: len(there)].all():
        packed["asked"] = _hex(asked)
    return packed


def _hex(bits: npt.NDArray[np.bool_]) -> str:
    return np.packbits(bits).tobytes().hex().rstrip("0")


def _bits(packed: Json, length: int) -> npt.NDArray[np.float64]:
    def unpacked(text: str) -> npt.NDArray[np.bool_]:
        data = bytes.fromhex(text.ljust(2 * -(-length // 8), "0"))
        return np.unpackbits(np.frombuffer(data, np.uint8), count=length).astype(bool)

    asked = np.arange(length) < packed["count"]
    if "asked" in packed:
        asked = unpacked(packed["asked"])
    return np.where(asked, unpacked(packed["right"]).astype(np.float64), np.nan)
