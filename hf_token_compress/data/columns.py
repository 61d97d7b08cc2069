"""Which column of a data set, or key of a JSON object, holds what."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from string import Formatter
from typing import Any

from .choices import is_missing

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "images"),
    "video": ("video",),
    "question": ("question", "conversations"),
    "answer": ("answer", "answers"),
    "choices": ("choices", "options"),
    "kind": ("kind",),
    "relevant_boxes": ("relevant_boxes",),
    "relevant_frames": ("relevant_frames",),
}
"""For each thing that is known of a sample, the names under which it is looked for."""

NAMEABLE = ("image", "video", "question", "answer", "choices", "kind")
"""Those whose columns a user can name, as `columns` or by an option such as --image-column."""


class Columns:
    """Finds what is known of a sample in a row of data.

    A name may lead into a column of objects, as in "json.conversations", and may be a pattern of
    several columns, as in "v_{video_name}.mp4".

    Args:
        given: For keys of `NAMEABLE`, the name of the column, or several names of columns that hold
            a value each. Other columns are looked for by their usual names.

    Raises:
        ValueError: `given` has another key.
    """

    def __init__(self, given: Mapping[str, str | Sequence[str]] | None = None) -> None:
        self.given = {
            key: (names,) if isinstance(names, str) else tuple(names)
            for key, names in (given or {}).items()
        }
        for key in self.given:
            if key not in NAMEABLE:
                raise ValueError(f"columns has the key {key!r}: use {', '.join(NAMEABLE)}.")

    def names(self, key: str) -> tuple[str, ...]:
        """Where the values of a key are looked for."""
        return self.given.get(key, USUAL_NAMES[key])

    def used(self, known: Collection[str]) -> list[str]:
        """Those of the columns that a sample may be read from."""
        names = (name for key in USUAL_NAMES for name in self.names(key))
        wanted = {column for name in names for column in columns_of(name, known)}
        return [name for name in known if name in wanted]

    def check(self, data: str, known: Collection[str], filters: Collection[str] = ()) -> None:
        """Raise unless the data has the columns that are named, questions, and images or videos.

        Args:
            data: What the message calls the data.
            known: The columns that there are.
            filters: Columns that samples are chosen by.

        Raises:
            ValueError: A column is missing.
        """
        for name in (*(name for names in self.given.values() for name in names), *filters):
            for column in columns_of(name, known):
                if column not in known:
                    raise ValueError(f"{data} has no column {column!r}{_it_has(column, known)}.")
        found = {
            key: key in self.given or any(name in known for name in names)
            for key, names in USUAL_NAMES.items()
        }
        if not found["question"]:
            raise ValueError(
                f"{data} has no column 'question'{_it_has('question', known)}; name the right one "
                "with --question-column."
            )
        if not (found["image"] or found["video"]):
            raise ValueError(
                f"{data} has no column 'image' or 'video'{_it_has('image', known)}; name the right "
                "one with --image-column or --video-column."
            )

    def check_spelling(self, data: str, known: Collection[str]) -> None:
        """Raise if a column is a near miss of a usual name that is not there.

        A misspelt "answer" would silently leave all answers unknown.

        Raises:
            ValueError: There is such a column.
        """
        for key in USUAL_NAMES:
            if key in self.given or any(name in known for name in USUAL_NAMES[key]):
                continue
            for name in known:
                # A lower cutoff takes "id" for "kind".
                meant = get_close_matches(name.lower(), USUAL_NAMES[key], 1, cutoff=0.8)
                if meant and name not in self.used(known):
                    raise ValueError(
                        f"{data} has the unknown column {name!r} (did you mean {meant[0]!r}?): "
                        "rename it."
                    )

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a row has for each key; None where it has nothing.

        Raises:
            ValueError: Two of the usual names hold a value.
        """
        return {key: self._value(key, row) for key in USUAL_NAMES}

    def _value(self, key: str, row: Mapping[str, Any]) -> Any:
        names = self.names(key)
        if key in self.given and len(names) > 1:
            several = [value_of(name, row) for name in names]
            # The places of choices count, those of images do not.
            return (
                several if key == "choices" else [x for x in several if not is_missing(x)] or None
            )
        values = {name: value_of(name, row) for name in names}
        present = [name for name, value in values.items() if not _is_empty(value)]
        if len(present) > 1:
            first, second = present[:2]
            raise ValueError(
                f"it has both {first!r} and {second!r}: choose one with --{key}-column"
            )
        return values[present[0]] if present else None


def columns_of(name: str, known: Collection[str]) -> list[str]:
    """The columns that a name of the user reads.

    Raises:
        ValueError: It is a pattern that cannot be read.
    """
    if name in known:
        return [name]
    if "{" in name:
        try:
            fields = [field for _, field, _, _ in Formatter().parse(name) if field is not None]
        except ValueError as error:
            raise ValueError(f"The pattern {name!r} cannot be read: {error}.") from error
        if "" in fields:
            raise ValueError(f"The pattern {name!r} has braces without the name of a column.")
        return fields
    return [name.partition(".")[0]]


def value_of(name: str, row: Mapping[str, Any]) -> Any:
    """What a row has under a name of the user; None if it has nothing."""
    if name in row:
        return row[name]
    if "{" in name:
        columns = columns_of(name, row)
        complete = all(row.get(column) is not None for column in columns)
        return name.format_map(row) if complete else None
    first, *others = name.split(".")
    value = row.get(first)
    for key in others:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and is_missing(value))


def _it_has(name: str, known: Collection[str]) -> str:
    meant = get_close_matches(name.lower(), known, 1)
    near = f" (did you mean {meant[0]!r}?)" if meant else ""
    return f"{near}: it has {', '.join(known) or 'no columns'}"
