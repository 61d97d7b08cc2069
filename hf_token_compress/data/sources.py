"""Where samples come from: memory, a file of JSON lines, or a dataset."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .fields import check_keys, sample_from_fields
from .sample import Sample


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


class JsonLines(SampleSource):
    """A file with one JSON object per line, in UTF-8.

    The keys are "image" (a path, or a list of paths) or "video" (a path, or a list of paths of its
    frames), "question", and optionally "answer", "kind", "relevant_boxes" (a list of [left, top,
    right, bottom] in pixels) and "relevant_frames" (the frame of each box, counted from 0). Other
    keys are ignored. Paths are relative to the file's folder.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no samples, it is not UTF-8, or a line has a misspelt key.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise FileNotFoundError(f"There is no data file {str(path)!r}.")
        content = self._path.read_bytes()
        try:
            text = content.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(
                f"The data file {str(path)!r} is not UTF-8 in its line {line}: save it as UTF-8."
            ) from error
        # Not `splitlines`, which also splits at U+2028 and others that JSON strings may hold.
        self._lines = [line for line in io.StringIO(text, newline=None) if line.strip()]
        if not self._lines:
            raise ValueError(f"The data file {str(path)!r} holds no samples: it is empty.")
        self._digest = hashlib.sha256(content).hexdigest()
        # A misspelt "answer" would silently leave all answers unknown.
        for index, sample in enumerate(self._lines):
            with suppress(json.JSONDecodeError):  # only this sample cannot be read
                check_keys(json.loads(sample), f"Sample {index} of the data file {str(path)!r}")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        try:
            fields = json.loads(self._lines[index])
        except json.JSONDecodeError as error:
            raise ValueError(f"sample {index} is not valid JSON ({error})") from error
        return sample_from_fields(fields, folder=self._path.parent)

    def describe(self) -> dict[str, Any]:
        """File name, number of samples and SHA-256."""
        return {"source": self._path.name, "samples": len(self), "sha256": self._digest}


class HubDataset(SampleSource):
    """A dataset of the `datasets` library, by name or folder.

    Args:
        name: Hub id, folder or builder's name, as `datasets.load_dataset` takes it.
        split: Name of the split.
        columns: Where "image" (or "video"), "question", "answer" or another key of `JsonLines` has
            another name. All other columns are ignored.
        **options: Further arguments of `load_dataset`, such as `name`, `revision` or `data_files`.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: The dataset is empty, or has no such column.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        columns: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                "Reading a dataset by name needs the package datasets: "
                'pip install "hf-token-compress[training]".'
            ) from error
        self._name, self._split = name, split
        self._columns = dict(columns or {})
        if (Path(name) / "dataset_info.json").is_file():
            self._dataset = datasets.load_from_disk(name)
        else:
            self._dataset = datasets.load_dataset(name, split=split, **options)
        if len(self._dataset) == 0:
            raise ValueError(f"The split {split!r} of the dataset {name!r} is empty.")
        missing = sorted(set(self._columns.values()) - set(self._dataset.column_names))
        if missing:
            raise ValueError(
                f"The dataset {name!r} has no column {', '.join(map(repr, missing))}: it has "
                f"{', '.join(self._dataset.column_names)}."
            )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        fields = dict(self._dataset[index])
        for key, column in self._columns.items():
            fields[key] = fields.get(column)
        return sample_from_fields(fields, folder=Path())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of samples, and the library's fingerprint of the content."""
        name = Path(self._name).name if Path(self._name).exists() else self._name
        return {
            "source": name,
            "split": self._split,
            "samples": len(self),
            "fingerprint": self._dataset._fingerprint,
        }
