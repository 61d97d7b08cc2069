"""The user's own questions, for `collect` and `evaluate`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import check_options
from .console import name_samples, notices
from .errors import CommandError, wrong_arguments

if TYPE_CHECKING:
    from ..data.check import Checked
    from ..data.metrics import MetricOption
    from ..data.sources import SampleSource

DATA = "Your own data: --data or --dataset"

_DATASET_ONLY = ("subset", "split", "revision")


def _column(what: str, metavar: str = "NAME") -> Any:
    default: Any = () if metavar == "NAMES" else None
    return field(default=default, metadata={"help": what, "metavar": metavar})


@dataclass(frozen=True)
class DataOptions:
    """Where the user's own questions come from."""

    data: Path | None = field(
        default=None,
        metadata={
            "help": (
                'A file with one JSON object per line: "image" (a path, or several) or "video", '
                '"question", and optionally "answer" (or several), "choices" and "kind". Or a JSON '
                "array of them, or a table in CSV or Parquet."
            ),
            "metavar": "FILE",
        },
    )
    dataset: str | None = field(
        default=None,
        metadata={"help": "A dataset: Hub id, or folder.", "metavar": "NAME"},
    )
    subset: str | None = field(default=None, metadata={"help": "Subset of the dataset."})
    split: str | None = field(
        default=None, metadata={"help": "Split of the dataset. By default train."}
    )
    revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the dataset."}
    )
    image_column: tuple[str, ...] = _column(
        "Columns of the images, separated by commas. By default image or images.", "NAMES"
    )
    video_column: str | None = _column("Column of the video. By default video.")
    question_column: str | None = _column(
        "Column of the question, or of conversations, whose first turn is asked. By default "
        "question or conversations."
    )
    answer_column: str | None = _column(
        "Column of the right answer, or of all that are right. By default answer or answers."
    )
    choices_column: tuple[str, ...] = _column(
        "Column of the choices, or a column for each, separated by commas. By default choices or "
        "options.",
        "NAMES",
    )
    kind_column: str | None = _column("Column of the kind of question. By default kind.")
    media_folder: Path | None = field(
        default=None,
        metadata={
            "help": (
                "Folder of the images and videos, whose names may lack their extension. By default "
                "paths are relative to the file, or to the dataset's folder."
            ),
            "metavar": "FOLDER",
        },
    )
    filter: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "Take only the samples with that value in that column.",
            "metavar": "COLUMN=VALUE",
        },
    )
    limit: int | None = field(
        default=None,
        metadata={
            "help": "Take only so many samples, the first that pass --filter.",
            "interval": "[1, inf)",
        },
    )
    prompt_suffix: str | None = field(
        default=None,
        metadata={
            "help": (
                'What to say after every question and its choices, such as "Answer with one '
                'word." By default, with choices, to answer with the letter.'
            ),
            "metavar": "TEXT",
        },
    )
    skip_bad: bool = field(
        default=False,
        metadata={
            "help": "Leave out samples that cannot be used, such as those without their file."
        },
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.data is not None and self.dataset is not None:
            raise ValueError("--data and --dataset exclude each other: leave one out.")
        for name, value in vars(self).items():
            option = f"--{name.replace('_', '-')}"
            if value in (None, (), {}, False) or name in ("data", "dataset"):
                continue
            if not self.given:
                raise ValueError(
                    f"{option} is about your own data: give --data or --dataset, or leave it out."
                )
            if name in _DATASET_ONLY and self.dataset is None:
                raise ValueError(f"{option} is about a dataset: give --dataset, or leave it out.")

    @property
    def given(self) -> bool:
        """Whether the user named data."""
        return self.data is not None or self.dataset is not None

    def source(self) -> SampleSource:
        """The samples, where data is given.

        Raises:
            ImportError, OSError, ValueError: They cannot be read.
        """
        from ..data.sources import HubDataset, JsonLines, TableFile
        from ..data.tables import TABLES

        options: dict[str, Any] = {
            "columns": self._columns,
            "media_folder": self.media_folder,
            "filters": self.filter,
            "limit": self.limit,
            "prompt_suffix": self.prompt_suffix,
        }
        in_table = self.data is not None and self.data.suffix.lower() in TABLES
        if self.dataset is not None or in_table:
            _hide_progress_of_datasets()
        if self.dataset is not None:
            if self.revision is not None:
                options["revision"] = self.revision
            return HubDataset(self.dataset, self.split or "train", subset=self.subset, **options)
        assert self.data is not None
        return (TableFile if in_table else JsonLines)(self.data, **options)

    @property
    def _columns(self) -> dict[str, Any]:
        keys = ("image", "video", "question", "answer", "choices", "kind")
        found = {key: getattr(self, f"{key}_column") for key in keys}
        return {key: names for key, names in found.items() if names}

    def check(self, source: SampleSource, metric: MetricOption) -> Checked:
        """Look at all samples before a model is loaded; name those that --skip-bad leaves out.

        Args:
            source: From `source`.
            metric: The metric that will score the answers.

        Raises:
            CommandError: Samples cannot be used, or the metric does not fit them.
        """
        from ..data.check import check_samples

        checked = check_samples(source)
        bad, count = checked.bad, checked.samples
        if bad and (not self.skip_bad or len(bad) == count):
            place, reason = bad[0]
            remedy = (
                "put it right"
                if len(bad) == count
                else "put it right, or leave such samples out with --skip-bad"
            )
            others = f" (and {len(bad) - 1} more of {count} samples)" if len(bad) > 1 else ""
            raise CommandError(
                f"{place[0].upper()}{place[1:]}{others} cannot be used, because {reason}: "
                f"{remedy}.",
                exit_code=2,
            )
        if bad:
            name_samples(f"{len(bad)} of {count} samples are left out", bad)
        with wrong_arguments():
            checked.check_metric(metric)
        return checked


def _hide_progress_of_datasets() -> None:
    """Keep its progress bars out of what is no terminal."""
    if notices().is_terminal:
        return
    with suppress(ImportError):  # whoever reads the data says that it is missing
        import datasets

        datasets.disable_progress_bars()
