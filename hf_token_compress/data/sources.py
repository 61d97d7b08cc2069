"""Images, videos and questions to collect from."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..prompt import Modality


@dataclass(frozen=True)
class TrainingSample:
    """One question about images, or about a video.

    Attributes:
        modality: "image" or "video".
        visuals: Its images (RGB), or its video as the processor takes it: a path, or frames.
        question: The question in words.
        answer: The right answer, if known.
    """

    modality: Modality
    visuals: tuple[Any, ...]
    question: str
    answer: str | None = None

    @property
    def has_frames(self) -> bool:
        """Whether it is a video whose frames are given, rather than a file to take some from."""
        return self.modality == "video" and not isinstance(self.visuals[0], str | Path)

    def conversation(self) -> list[dict[str, Any]]:
        """One user turn, for a processor's chat template."""
        content: list[dict[str, Any]] = [
            {"type": self.modality, self.modality: visual} for visual in self.visuals
        ]
        content.append({"type": "text", "text": self.question})
        return [{"role": "user", "content": content}]


class SampleSource(ABC):
    """Samples by number. A sample is read when it is asked for, and may then turn out bad."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples, good and bad."""

    @abstractmethod
    def __getitem__(self, index: int) -> TrainingSample:
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

    def __init__(self, samples: Sequence[TrainingSample], name: str = "in memory") -> None:
        self._samples = list(samples)
        self._name = name

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> TrainingSample:
        return self._samples[index]

    def describe(self) -> dict[str, Any]:
        """Name and number."""
        return {"source": self._name, "samples": len(self)}


class JsonLines(SampleSource):
    """A file with one JSON object a line, in UTF-8.

    The keys are "image" (a path, or a list of paths) or "video" (a path, or a list of paths of its
    frames), "question", and optionally "answer". Paths are relative to the file's folder.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no samples, or it is not UTF-8.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise FileNotFoundError(f"There is no data file {str(path)!r}.")
        content = self._path.read_bytes()
        # Not `splitlines`, which also splits at U+2028 and others that JSON strings may hold.
        lines = io.StringIO(_decoded(content, self._path).removeprefix("\ufeff"), newline=None)
        self._lines = [line for line in lines if line.strip()]
        if not self._lines:
            raise ValueError(f"The data file {str(path)!r} holds no samples: it is empty.")
        self._digest = hashlib.sha256(content).hexdigest()

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> TrainingSample:
        try:
            row = json.loads(self._lines[index])
        except json.JSONDecodeError as error:
            raise ValueError(f"sample {index} is not valid JSON ({error})") from error
        return sample_of_row(row, folder=self._path.parent)

    def describe(self) -> dict[str, Any]:
        """File name, number of samples and SHA-256."""
        return {"source": self._path.name, "samples": len(self), "sha256": self._digest}


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"The data file {str(path)!r} is not UTF-8 in its line {line}: save it as UTF-8."
        ) from error


class HubDataset(SampleSource):
    """A dataset of the `datasets` library, by name or folder.

    Args:
        name: Hub id, folder or builder's name, as `datasets.load_dataset` takes it.
        split: Name of the split.
        columns: Where "image" (or "video"), "question" and "answer" are called otherwise.
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
            self._rows = datasets.load_from_disk(name)
        else:
            self._rows = datasets.load_dataset(name, split=split, **options)
        if len(self._rows) == 0:
            raise ValueError(f"The split {split!r} of the dataset {name!r} is empty.")
        missing = sorted(set(self._columns.values()) - set(self._rows.column_names))
        if missing:
            raise ValueError(
                f"The dataset {name!r} has no column {', '.join(map(repr, missing))}: it has "
                f"{', '.join(self._rows.column_names)}."
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TrainingSample:
        row = dict(self._rows[index])
        for key, column in self._columns.items():
            row[key] = row.get(column)
        return sample_of_row(row, folder=Path())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of samples, and the library's fingerprint of the content."""
        name = Path(self._name).name if Path(self._name).exists() else self._name
        return {
            "source": name,
            "split": self._split,
            "samples": len(self),
            "fingerprint": self._rows._fingerprint,
        }


def sample_of_row(row: Mapping[str, Any], folder: Path) -> TrainingSample:
    """Read the images of a JSON object or of a dataset's row.

    Raises:
        OSError: An image cannot be read.
        ValueError: Something is missing.
    """
    if not isinstance(row, Mapping):
        raise ValueError("the sample is not a JSON object")
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("the sample has no question")
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str):
        answer = str(answer)
    images, video = row.get("image"), row.get("video")
    if (images is None) == (video is None):
        raise ValueError('the sample needs either "image" or "video"')
    if video is not None:
        visual: Any = video
        if isinstance(video, str):
            visual = str(folder / video)
        elif isinstance(video, list):
            visual = [_image(frame, folder) for frame in video]
        return TrainingSample("video", (visual,), question, answer)
    listed = images if isinstance(images, list) else [images]
    if not listed:
        raise ValueError("the sample has no image")
    return TrainingSample("image", tuple(_image(item, folder) for item in listed), question, answer)


def _image(item: Any, folder: Path) -> Image.Image:
    if isinstance(item, Image.Image):
        return _upright(item)
    if not isinstance(item, str):
        raise ValueError(f"an image must be a path, not {type(item).__name__}")
    with Image.open(folder / item) as opened:
        return _upright(opened)


def _upright(picture: Image.Image) -> Image.Image:
    """RGB, turned as its EXIF tag says: Transformers reads the images of prompts so too."""
    return ImageOps.exif_transpose(picture).convert("RGB")
