"""Sources of composed scenes and clips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from errors import one_sentence

from hf_token_compress.data.composed import ClipSource, SceneSource, clip_samples
from hf_token_compress.data.sources import SampleSource


def test_scenes_are_the_same_in_every_process() -> None:
    first, second = SceneSource(7), SceneSource(7)
    for number in range(7):
        assert first[number].question == second[number].question
        assert first[number].visuals[0].tobytes() == second[number].visuals[0].tobytes()
    assert first.describe() == second.describe()
    assert first.describe() != SceneSource(7, seed=1).describe()


@pytest.mark.parametrize(
    ("source", "kind", "known"), [(SceneSource, "first", "where"), (ClipSource, "where", "first")]
)
def test_kinds_that_are_not_asked(
    source: Callable[..., SampleSource], kind: str, known: str
) -> None:
    with one_sentence(ValueError, f"no kind of question {kind!r}", known):
        source(4, kinds=["colour", kind])


@pytest.mark.parametrize(
    ("source", "board", "words"),
    [
        (SceneSource, {"rows": 9}, ("rows", "1 to 8", "9 x 4")),
        (ClipSource, {"frames": 9}, ("frames", "1 to 8", "9")),
        (ClipSource, {"frames": 8, "rows": 8, "columns": 8}, ("512 cells", "concepts")),
    ],
)
def test_boards_that_cannot_be_composed(
    source: Callable[..., SampleSource], board: dict[str, int], words: tuple[str, ...]
) -> None:
    with one_sentence(ValueError, *words):
        source(4, **board)


def test_clips_of_mappers_are_a_stream_of_their_own() -> None:
    first, second = ClipSource(5, frames=2), ClipSource(5, frames=2)
    tested = clip_samples(["during"], 5, frames=2)
    for number in range(5):
        pixels = [frame.tobytes() for frame in first[number].visuals[0]]
        assert pixels == [frame.tobytes() for frame in second[number].visuals[0]]
        assert first[number].question == second[number].question
        assert pixels != [frame.tobytes() for frame in tested[number].frames]
    assert first.describe() == second.describe()
    assert first.describe() != ClipSource(5, frames=2, frames_per_scene=2).describe()
