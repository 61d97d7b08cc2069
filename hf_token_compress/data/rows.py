"""Samples that are read from rows of data, be they JSON objects or rows of a table."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from ..checks import check_count
from .columns import Columns, value_of
from .fields import sample_from_fields
from .media_folder import MediaFolder
from .sample import Sample
from .sample_source import SampleSource

_MOST_NAMED = 5
# `Path` makes one slash of two.
_WEB_ADDRESS = re.compile(r"(https?|ftp|hf|s3):/")


class Rows(SampleSource):
    """Samples that are read from rows of data.

    Args:
        folder: What paths are relative to, where no folder of media is given.
        columns, media_folder, filters, limit, prompt_suffix: As of `JsonLines`.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str | Sequence[str]] | None,
        media_folder: str | Path | None,
        filters: Mapping[str, Any] | None,
        limit: int | None,
        prompt_suffix: str | None,
    ) -> None:
        if limit is not None:
            check_count("limit", limit, at_least=1)
        self._columns, self._prompt_suffix = Columns(columns), prompt_suffix
        searched = media_folder is not None
        self._folder = MediaFolder(media_folder or folder, searched=searched)
        self._filters, self._limit = dict(filters or {}), limit

    @abstractmethod
    def _row(self, index: int, *, decoded: bool) -> Mapping[str, Any]:
        """One row; where it is not decoded, images that the data holds may be `HELD`."""

    def __getitem__(self, index: int) -> Sample:
        return self._sample(index, decoded=True)

    @override
    def peek(self, index: int) -> Sample:
        return self._sample(index, decoded=False)

    def _sample(self, index: int, *, decoded: bool) -> Sample:
        return sample_from_fields(
            self._columns.values(self._row(index, decoded=decoded)),
            self._folder,
            prompt_suffix=self._prompt_suffix,
            decoded=decoded,
        )

    def _chosen(self, data: str, rows: Iterable[Mapping[str, Any] | None]) -> list[int]:
        """The numbers of the rows that are samples; a row that cannot be read is None.

        Raises:
            ValueError: There is none.
        """
        chosen: list[int] = []
        values: dict[str, None] = {}
        for number, row in enumerate(rows):
            if len(chosen) == self._limit:
                break
            # Whoever reads it finds out why it cannot be read.
            if row is None or all(_equal(value_of(k, row), v) for k, v in self._filters.items()):
                chosen.append(number)
            elif len(values) <= _MOST_NAMED:
                values |= {str(value_of(name, row)): None for name in list(self._filters)[:1]}
        if not chosen:
            name = next(iter(self._filters))
            first = list(values)[:_MOST_NAMED]
            more = ", …" if len(values) > _MOST_NAMED else ""
            asked = " and ".join(f"{key}={value}" for key, value in self._filters.items())
            raise ValueError(
                f"{data} has no sample with {asked}: in {name!r} it has {', '.join(first)}{more}."
            )
        return chosen

    def _described(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        found = {
            "columns": {key: list(names) for key, names in self._columns.given.items()},
            "filters": self._filters,
            "limit": self._limit,
            "prompt_suffix": self._prompt_suffix,
        }
        return {key: value for key, value in found.items() if value not in ({}, None)}


class DataFile(Rows):
    """Samples that are read from one file.

    Args:
        path: The file.
        columns, media_folder, filters, limit, prompt_suffix: As of `JsonLines`.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        *,
        media_folder: str | Path | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
        prompt_suffix: str | None = None,
    ) -> None:
        self._path = Path(path)
        if self._path.is_dir():
            raise IsADirectoryError(
                f"{str(path)!r} is a folder, not a data file: name a file in it, or read it as a "
                "dataset with --dataset."
            )
        if _WEB_ADDRESS.match(str(path)):
            raise FileNotFoundError(
                f"Data files are not downloaded: fetch {self._path.name!r} yourself, and name the "
                "file on this machine."
            )
        if not self._path.is_file():
            raise FileNotFoundError(f"There is no data file {str(path)!r}.")
        super().__init__(self._path.parent, columns, media_folder, filters, limit, prompt_suffix)
        content = self._path.read_bytes()
        self._digest = hashlib.sha256(content).hexdigest()
        self._read(f"The data file {str(path)!r}", content)

    @abstractmethod
    def _read(self, data: str, content: bytes) -> None:
        """Take the rows; `data` names the file in messages, `content` is what it holds."""

    def describe(self) -> dict[str, Any]:
        """File name, number of samples, SHA-256, and the options that were given."""
        own = {"source": self._path.name, "samples": len(self), "sha256": self._digest}
        return {**own, **self._described()}


def utf8_text(data: str, content: bytes) -> str:
    """The text of a file, without its byte order mark; `data` names the file in messages.

    Raises:
        ValueError: It is not UTF-8.
    """
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{data} is not UTF-8 in its line {line}: save it as UTF-8.") from error


def _equal(value: Any, wanted: Any) -> bool:
    # Command lines turn "7" into a number, whatever the column holds.
    return value is not None and (value == wanted or str(value) == str(wanted))
