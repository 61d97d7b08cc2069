"""Samples by number, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

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

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def peek(self, index: int) -> Sample:
        """A sample whose images may be paths, or anything else that stands for them.

        It costs little where samples are read from files, and raises what can be known without
        decoding.

        Raises:
            OSError, ValueError: It cannot be read, or a file is missing.
        """
        return self[index]

    def place(self, index: int) -> str:
        """Where a sample stands, in words that a message can begin with."""
        return f"sample {index}"

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
