"""The answers of an evaluation, in memory or in a file with which a stopped run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .results import SampleResult


class Answers:
    """The answers that are known, by the key of their setting and the number of the sample."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, SampleResult]] = {}

    def of(self, key: str) -> Mapping[int, SampleResult]:
        """The answers with a setting, by number of the sample; a view that grows."""
        return self._found.setdefault(key, {})

    def add(self, key: str, results: Sequence[SampleResult]) -> None:
        """Add the answers to a batch."""
        self._found.setdefault(key, {}).update({result.number: result for result in results})


class AnswersFile(Answers):
    """Answers that are also appended to a file, a batch a line.

    The file's first line says what is measured. A last line that a killed run has left unfinished
    is dropped.

    Args:
        path: The file; it is made if it does not exist.
        about: What is measured, as JSON types.

    Raises:
        OSError: The file cannot be read or written.
        ValueError: It holds answers of something else, or no answers.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any]) -> None:
        super().__init__()
        self._path = Path(path)
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        header = _line(about)
        try:
            if whole:
                first, *lines = whole.splitlines()
                self._check(json.loads(first), json.loads(header))
                for line in lines:
                    batch = json.loads(line)
                    super().add(batch["setting"], [_read(item) for item in batch["answers"]])
            elif not header.startswith(content):
                raise TypeError
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
            raise ValueError(
                f"The file {str(path)!r} holds no answers of an evaluation, or is damaged: delete "
                "it, or choose another file."
            ) from None
        # Only now it is known to be ours.
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        if not whole:
            self._append(header)

    def add(self, key: str, results: Sequence[SampleResult]) -> None:
        """Add the answers to a batch, and write them to the disk."""
        self._append(_line({"setting": key, "answers": [asdict(own) for own in results]}))
        super().add(key, results)

    def _append(self, line: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _check(self, started: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        for name in (*about, *started):
            had, has = started.get(name), about.get(name)
            if had != has:
                raise ValueError(
                    f"{str(self._path)!r} holds the answers of a run with another {name} "
                    f"({_short(had)}, now {_short(has)}): choose another file, or delete it."
                )


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _read(fields: dict[str, Any]) -> SampleResult:
    return SampleResult(**{**fields, "first_tokens": tuple(fields["first_tokens"])})


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
