"""Where samples come from: memory, a file of JSON lines, or a dataset."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import check_count
from .columns import Columns
from .fields import HELD, sample_from_fields
from .media_folder import MediaFolder
from .sample import Sample

_MOST_NAMED = 5


class SampleSource(ABC):
    """Samples by number. A sample is read when it is asked for, which may fail."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples, good and bad."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            OSError, ValueError: It cannot be read.
        """

    def peek(self, index: int) -> Sample:
        """A sample whose images may be paths, or anything else that stands for them.

        It costs little where samples are read from files, and raises what can be known without
        decoding.

        Raises:
            OSError, ValueError: It cannot be read, or a file is missing.
        """
        return self[index]

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What these samples are, in JSON types: equal for equal samples, free of paths."""


class SampleList(SampleSource):
    """Samples in memory.

    Args:
        samples: The samples.
        name: What they are, for the record.
    """

    def __init__(self, samples: Sequence[Sample], name: str = "in memory") -> None:
        self._samples = list(samples)
        self._name = name

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def describe(self) -> dict[str, Any]:
        """Name and number."""
        return {"source": self._name, "samples": len(self)}


class _Rows(SampleSource):
    """Samples that are read from rows of data."""

    def __init__(
        self,
        columns: Mapping[str, str | Sequence[str]] | None,
        folder: MediaFolder,
        filters: Mapping[str, Any] | None,
        limit: int | None,
        prompt_suffix: str | None,
    ) -> None:
        if limit is not None:
            check_count("limit", limit, at_least=1)
        self._columns, self._folder, self._prompt_suffix = Columns(columns), folder, prompt_suffix
        self._filters, self._limit = dict(filters or {}), limit

    @abstractmethod
    def _row(self, index: int, *, decoded: bool) -> Mapping[str, Any]:
        """One row; where it is not decoded, images that the data holds may be `HELD`."""

    def __getitem__(self, index: int) -> Sample:
        return self._sample(index, decoded=True)

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
            if row is None or all(_equal(row.get(k), v) for k, v in self._filters.items()):
                chosen.append(number)
            elif len(values) <= _MOST_NAMED:
                values |= {str(row.get(name)): None for name in list(self._filters)[:1]}
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


class JsonLines(_Rows):
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
        if not self._path.is_file():
            raise FileNotFoundError(f"There is no data file {str(path)!r}.")
        folder = _media_folder(media_folder, self._path.parent)
        super().__init__(columns, folder, filters, limit, prompt_suffix)
        content = self._path.read_bytes()
        self._digest = hashlib.sha256(content).hexdigest()
        data = f"The data file {str(path)!r}"
        items = _items(data, content)
        if not items:
            raise ValueError(f"{data} holds no samples: it is empty.")
        rows = [_parsed(item) for item in items]
        known = list(dict.fromkeys(key for row in rows if row is not None for key in row))
        if known:  # otherwise not one line can be read
            self._columns.check_spelling(data, known)
            self._columns.check(data, known, self._filters)
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

    def describe(self) -> dict[str, Any]:
        """File name, number of samples, SHA-256, and the options that were given."""
        own = {"source": self._path.name, "samples": len(self), "sha256": self._digest}
        return {**own, **self._described()}


class HubDataset(_Rows):
    """A dataset of the `datasets` library, by name or folder.

    Args:
        name: Hub id, folder or builder's name, as `datasets.load_dataset` takes it.
        split: Name of the split.
        columns, filters, limit, prompt_suffix: As of `JsonLines`. All other columns are ignored.
        subset: Name of the subset, which `load_dataset` calls `name`.
        media_folder: As of `JsonLines`. By default paths are relative to the dataset's folder, or
            to the working directory for a dataset of the Hub.
        **options: Further arguments of `load_dataset`, such as `revision` or `data_files`.

    Raises:
        FileNotFoundError: There is no such folder.
        ImportError: `datasets` is not installed.
        ValueError: The dataset is empty, or has no such column.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        columns: Mapping[str, str | Sequence[str]] | None = None,
        *,
        subset: str | None = None,
        media_folder: str | Path | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
        prompt_suffix: str | None = None,
        **options: Any,
    ) -> None:
        folder = _media_folder(media_folder, Path(name) if Path(name).is_dir() else Path())
        super().__init__(columns, folder, filters, limit, prompt_suffix)
        self._name, self._split = name, split
        dataset = _load(name, split, subset, options)
        data = f"The dataset {name!r}"
        if len(dataset) == 0:
            raise ValueError(f"The split {split!r} of the dataset {name!r} is empty.")
        known = dataset.column_names
        self._columns.check(data, known, self._filters)
        self._fingerprint = dataset._fingerprint
        if self._filters:
            dataset = dataset.select(self._chosen(data, dataset.select_columns([*self._filters])))
        elif limit is not None:
            dataset = dataset.select(range(min(limit, len(dataset))))
        dataset = dataset.select_columns(self._columns.used(known))
        self._held = [name for name, item in dataset.features.items() if _holds_media(item)]
        self._labels = {
            name: item for name, item in dataset.features.items() if hasattr(item, "int2str")
        }
        self._dataset = _without_video_decoding(dataset)
        self._light = dataset.select_columns(
            [name for name in dataset.column_names if name not in self._held]
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def _row(self, index: int, *, decoded: bool) -> Mapping[str, Any]:
        row = dict((self._dataset if decoded else self._light)[index])
        if not decoded:
            row |= dict.fromkeys(self._held, HELD)
        for name, label in self._labels.items():
            if row[name] is not None:
                row[name] = label.int2str(row[name])
        return row

    def describe(self) -> dict[str, Any]:
        """Name, split, samples, the library's fingerprint of all data, and the options given."""
        return {
            "source": Path(self._name).name if Path(self._name).exists() else self._name,
            "split": self._split,
            "samples": len(self),
            "fingerprint": self._fingerprint,
            **self._described(),
        }


def _media_folder(given: str | Path | None, otherwise: Path) -> MediaFolder:
    return MediaFolder(otherwise) if given is None else MediaFolder(given, searched=True)


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


def _equal(value: Any, wanted: Any) -> bool:
    # Command lines turn "7" into a number, whatever the column holds.
    return value is not None and (value == wanted or str(value) == str(wanted))


def _load(name: str, split: str, subset: str | None, options: Mapping[str, Any]) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "Reading a dataset by name needs the package datasets: "
            'pip install "hf-token-compress[training]".'
        ) from error
    if (Path(name) / "dataset_info.json").is_file():
        return datasets.load_from_disk(name)
    return datasets.load_dataset(name, subset, split=split, **options)


def _holds_media(feature: Any) -> bool:
    import datasets

    kinds = (datasets.Image, datasets.Video)
    return isinstance(feature, kinds) or isinstance(getattr(feature, "feature", None), kinds)


def _without_video_decoding(dataset: Any) -> Any:
    """Videos as paths, as frames are chosen by the model's processor."""
    import datasets

    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Video):
            dataset = dataset.cast_column(name, datasets.Video(decode=False))
    return dataset
