"""The user's own questions, for `hf-token-compress evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .console import counting, notices, quiet_libraries

if TYPE_CHECKING:
    from ..data.sources import SampleSource
    from ..evaluation import Questions

_MOST_NAMED = 5


def read_questions(
    source: SampleSource, processor: Any, kinds: Sequence[str], frames: int | None
) -> Questions:
    """The user's own questions; those that cannot be asked are counted and named on stderr.

    Raises:
        ValueError: There is no question of a kind, or none that can be asked.
    """
    from ..evaluation import Questions

    with quiet_libraries(progress_bars=False), counting("Reading", len(source)) as done:
        questions = Questions(source, processor, kinds=kinds, num_frames=frames, after_sample=done)
    if questions.left_out:
        named = [f"sample {item.number}, {item.reason}" for item in questions.left_out]
        more = "; …" if len(named) > _MOST_NAMED else ""
        notices().print(
            Text(
                f"{len(named)} of {len(source)} questions are left out: "
                f"{'; '.join(named[:_MOST_NAMED])}{more}",
                style="yellow",
            ),
            soft_wrap=True,
        )
    return questions
