"""Samples in a file of JSON objects."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from .rows import DataFile


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
        items = _items(data, content)
        if not items:
            raise ValueError(f"{data} holds no samples: it is empty.")
        rows = [_parsed(item) for item in items]
        known = list(dict.fromkeys(key for row in rows if row is not None for key in row))
        if known:  # otherwise not one line can be read
            self._columns.check(data, known, self._filters)
            self._columns.check_spelling(data, known)
        self._items = [items[number] for number in self._chosen(data, rows)]

    def __len__(self) -> int:
        return len(self._items)

    def _row(self, index: int, *, decoded: bool) -> Mapping[str, Any]:
        item = self._items[index]
        try:
            row = json.loads(item) if isinstance(item, str) else item
        except json.JSONDecodeError as error:
            raise ValueError(f"it is not valid JSON ({error})") from error
        if not isinstance(row, Mapping):
            raise ValueError("it is not a JSON object")
        return row


def _items(data: str, content: bytes) -> list[Any]:
    """The lines of a file, or the elements of its array."""
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{data} is not UTF-8 in its line {line}: save it as UTF-8.") from error
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"{data} is not valid JSON: {error}.") from error
    # Not `splitlines`, which also splits at U+2028 and others that JSON strings may hold.
    return [line for line in io.StringIO(text, newline=None) if line.strip()]


def _parsed(item: Any) -> Mapping[str, Any] | None:
    """A JSON object; None where it is none."""
    try:
        row = json.loads(item) if isinstance(item, str) else item
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, Mapping) else None
