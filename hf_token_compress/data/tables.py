"""Samples in datasets and tables, read with the library `datasets`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from ..hub import first_line
from .columns import columns_of
from .fields import HELD
from .rows import DataFile, Rows, utf8_text

TABLES = {".csv": "csv", ".parquet": "parquet"}
"""Builders of `datasets` by the extension of the files that they read."""

_BLOCK = 1000
_OTHER_SEPARATORS = re.compile(r"[;\t]")


class _Table(Rows):
    """Rows of a dataset that is loaded."""

    def _use(self, dataset: Any, data: str) -> None:
        """Take the rows and columns that samples are read from; `data` names it in messages."""
        if len(dataset) == 0:
            raise ValueError(f"{data} holds no samples: it is empty.")
        known = dataset.column_names
        self._columns.check(data, known, self._filters)
        features = dataset.features
        self._labels = {name: features[name] for name in features if _is_label(features[name])}
        self._row_numbers: Sequence[int] = range(len(dataset))
        if self._filters:
            filtered = {c: None for name in self._filters for c in columns_of(name, known)}
            rows = map(self._with_labels, dataset.select_columns([*filtered]))
            self._row_numbers = self._chosen(data, rows)
            dataset = dataset.select(self._row_numbers)
        elif self._limit is not None:
            dataset = dataset.select(range(min(self._limit, len(dataset))))
        dataset = _with_paths_of_videos(dataset.select_columns(self._columns.used(known)))
        features = dataset.features
        self._held = [name for name in features if _holds_media(features[name])]
        self._dataset = dataset
        self._block: dict[str, list[Any]] = {}
        self._block_start = -1
        self._light = dataset.select_columns([name for name in features if name not in self._held])

    def __len__(self) -> int:
        return len(self._dataset)

    @override
    def place(self, index: int) -> str:
        return f"row {self._row_numbers[index] + 1} of {self.describe()['source']!r}"

    def _row(self, index: int, *, decoded: bool) -> Mapping[str, Any]:
        if not decoded:
            return self._with_labels(self._light_row(index))
        try:
            row = self._dataset[index]
        except IndexError:
            raise
        except Exception as error:  # Pillow raises errors of many kinds for broken images
            raise ValueError("an image that the dataset holds cannot be read") from error
        return self._with_labels(row)

    def _with_labels(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with the names of labels in place of their numbers."""
        numbers = {name: row[name] for name in self._labels if row.get(name) is not None}
        names = {name: self._labels[name].int2str(number) for name, number in numbers.items()}
        return {**row, **names}

    def _light_row(self, index: int) -> dict[str, Any]:
        """A row without what it holds, read in blocks: all rows are looked at in turn."""
        start = index // _BLOCK * _BLOCK
        if start != self._block_start:
            self._block = self._light[start : start + _BLOCK]
            self._block_start = start
        row = {name: values[index - start] for name, values in self._block.items()}
        return row | dict.fromkeys(self._held, HELD)


class HubDataset(_Table):
    """A dataset of the `datasets` library, by name or folder.

    Args:
        name: Hub id, folder or builder's name, as `datasets.load_dataset` takes it.
        split: Name of the split.
        columns: As of `JsonLines`. All other columns are ignored.
        subset: Name of the subset, which `load_dataset` calls `name`.
        media_folder: As of `JsonLines`. By default paths are relative to the dataset's folder, or
            to the working directory for a dataset of the Hub.
        filters: As of `JsonLines`.
        limit: As of `JsonLines`.
        prompt_suffix: As of `JsonLines`.
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
        self._name, self._split = name, split
        self._is_local = Path(name).is_dir()
        folder = Path(name) if self._is_local else Path()
        super().__init__(folder, columns, media_folder, filters, limit, prompt_suffix)
        data = f"The split {split!r} of the dataset {name!r}"
        if (Path(name) / "dataset_info.json").is_file():
            dataset = _datasets().load_from_disk(name)
        else:
            dataset = _loaded(data, name, subset, split=split, **options)
        self._fingerprint = dataset._fingerprint
        self._use(dataset, data)

    def describe(self) -> dict[str, Any]:
        """Name, split, samples, the library's fingerprint of all data, and the options given."""
        return {
            "source": Path(self._name).name if self._is_local else self._name,
            "split": self._split,
            "samples": len(self),
            "fingerprint": self._fingerprint,
            **self._described(),
        }


class TableFile(DataFile, _Table):
    """A table in one file: CSV or Parquet.

    Args:
        path: The file.
        columns: As of `JsonLines`.
        media_folder: As of `JsonLines`.
        filters: As of `JsonLines`.
        limit: As of `JsonLines`.
        prompt_suffix: As of `JsonLines`.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ImportError: `datasets` is not installed.
        ValueError: It holds no samples, or has no such column.
    """

    @override
    def _read(self, data: str, content: bytes) -> None:
        builder = TABLES[self._path.suffix.lower()]
        if builder == "csv":
            header, _, _ = utf8_text(data, content).lstrip().partition("\n")
            if not header:
                raise ValueError(f"{data} holds no samples: it is empty.")
            if "," not in header and (separator := _OTHER_SEPARATORS.search(header)):
                raise ValueError(
                    f"{data} separates its columns by {separator.group()!r}: save it with commas."
                )
        dataset = _loaded(data, builder, data_files=str(self._path), split="train")
        self._columns.check_spelling(data, dataset.column_names)
        self._use(dataset, data)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "Reading datasets and tables needs the package datasets: "
            'pip install "hf-token-compress[training]".'
        ) from error
    return datasets


def _loaded(data: str, *arguments: Any, **options: Any) -> Any:
    """What `load_dataset` gives; `data` names it in messages."""
    datasets = _datasets()
    try:
        return datasets.load_dataset(*arguments, **options)
    except (datasets.exceptions.DatasetBuildError, OverflowError, ValueError) as error:
        reason = first_line(error.__cause__ or error).rstrip(".!").replace(". ", "; ")
        raise ValueError(f"{data} cannot be read: {reason}.") from error


def _holds_media(feature: Any) -> bool:
    """Whether a column holds images or videos themselves."""
    datasets = _datasets()
    kinds = (datasets.Image, datasets.Video)
    return isinstance(feature, kinds) or isinstance(getattr(feature, "feature", None), kinds)


def _is_label(feature: Any) -> bool:
    return isinstance(feature, _datasets().ClassLabel)


def _with_paths_of_videos(dataset: Any) -> Any:
    """Videos as paths, since the model's processor chooses the frames."""
    datasets = _datasets()
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Video):
            dataset = dataset.cast_column(name, datasets.Video(decode=False))
    return dataset
