"""Samples in a file of JSON objects."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from .rows import DataFile, utf8_text

_EXTENSIONS = (".json", ".jsonl", ".ndjson")


class JsonLines(DataFile):
    """A file with one JSON object per line, or with one JSON array of objects, in UTF-8.

    The keys are "image" (a path, or a list of paths) or "video" (a path, or a list of paths of its
    frames), "question", and optionally "answer" (text, a number, or a list of all that are right),
    "choices" (a list of texts, of which the answer is one, or its letter, or its number from 0),
    "kind", "relevant_boxes" (a list of [left, top, right, bottom] in pixels) and "relevant_frames"
    (the frame of each box, counted from 0). Other keys are ignored, but "images", "answers",
    "options" and "conversations" are read where the usual key is missing (`USUAL_NAMES`).

    Args:
        path: The file.
        columns: Where "image", "video", "question", "answer", "choices" or "kind" has another name;
            several names stand for a list of their values.
        media_folder: The folder of the images and videos, whose names may lack their extension and
            the folders that they are in. By default paths are relative to the file's folder.
        filters: Values by key, which a sample must have.
        limit: How many samples to take, from the start of those that pass the filters. By default
            all.
        prompt_suffix: What is said after every question and its choices.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It holds no samples, it is not UTF-8, or a key is missing or misspelt.
    """

    @override
    def _read(self, data: str, content: bytes) -> None:
        self._unit, items = _items(data, content)
        if not items:
            raise ValueError(f"{data} holds no samples: it is empty.")
        rows = {number: _parsed(item) for number, item in items.items()}
        # The first row of each set of keys stands for all that have it.
        key_sets: dict[tuple[str, ...], int] = {}
        for number, row in rows.items():
            if row is not None:
                key_sets.setdefault(tuple(row), number)
        if not key_sets and self._path.suffix.lower() not in _EXTENSIONS:
            raise ValueError(
                f"{data} does not hold JSON: data files are JSON Lines, a JSON array, or a table "
                "whose name ends in .csv or .parquet."
            )
        if key_sets:  # otherwise not one line can be read
            known = list(dict.fromkeys(key for keys in key_sets for key in keys))
            self._columns.check(data, known, self._filters)
        for keys, number in key_sets.items():
            self._columns.check_spelling(f"{data}, {self._unit} {number},", keys)
        numbers = list(rows)
        self._numbers = [numbers[index] for index in self._chosen(data, rows.values())]
        self._items = [items[number] for number in self._numbers]

    def __len__(self) -> int:
        return len(self._items)

    @override
    def place(self, index: int) -> str:
        return f"{self._unit} {self._numbers[index]} of {self._path.name!r}"

    def _row(self, index: int, *, decoded: bool) -> Mapping[str, Any]:
        item = self._items[index]
        try:
            row = json.loads(item) if isinstance(item, _Line) else item
        except json.JSONDecodeError as error:
            raise ValueError(
                f"it is not valid JSON ({error.msg} at character {error.colno})"
            ) from error
        if not isinstance(row, Mapping):
            raise ValueError("it is not a JSON object with keys such as image and question")
        return row


class _Line(str):
    """A line of a file, unlike a string in its array."""


def _items(data: str, content: bytes) -> tuple[str, dict[int, Any]]:
    """What the samples are called, and the lines of a file or the elements of its array, from 1."""
    text = utf8_text(data, content)
    # Not `splitlines`, which also splits at U+2028 and others that JSON strings may hold.
    lines = {
        number: _Line(line)
        for number, line in enumerate(io.StringIO(text, newline=None), start=1)
        if line.strip()
    }
    if text.lstrip().startswith("["):
        try:
            return "item", dict(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as error:
            # A list by itself is a bad line, of which no more than that is wrong.
            if not _is_json(next(iter(lines.values()))):
                raise ValueError(f"{data} is not valid JSON: {error}.") from error
    return "line", lines


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _parsed(item: Any) -> Mapping[str, Any] | None:
    """A JSON object; None where it is none."""
    try:
        row = json.loads(item) if isinstance(item, _Line) else item
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, Mapping) else None
