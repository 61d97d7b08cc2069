"""Bring the messages in docs/troubleshooting.md up to date with those in the code.

The page is a list by situation: a message, and after it why it comes and what else to do. Which
section a message is in, and what is written after it, stays as it is on the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from messages import messages

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
_MARKER = "`make messages`"
_ITEM = re.compile(r"- (?:`` (?P<ticked>.+?) ``|`(?P<plain>[^`]+)`)(?P<note> .*)?")


def listed(page: str) -> dict[str, str]:
    """The messages on the page, with what is written after them."""
    items = map(_read, page.split("\n")[_start(page) :])
    return {message: note for message, note in items if message}


def updated(page: str, found: Mapping[str, Sequence[Path]]) -> str:
    """The page with exactly the messages that were found, each with the files that hold it.

    A message that was reworded keeps its place and its note. A new one comes to the end of the
    section that has most messages of its files.
    """
    lines = page.split("\n")
    old = listed(page)
    new = [message for message in found if message not in old]
    gone = [message for message in old if message not in found]
    reworded: dict[str, str] = {}
    for message in list(new):
        near = get_close_matches(message, [item for item in gone if item not in reworded], 1)
        if near:
            reworded[near[0]] = message
            new.remove(message)
    kept = lines[: _start(page)]
    for line in lines[_start(page) :]:
        message, note = _read(line)
        if message in reworded:
            kept.append(_item(reworded[message], note))
        elif message not in gone:
            kept.append(line)
    for message in new:
        kept.insert(_place(kept, found, found[message]), _item(message))
    return "\n".join(kept)


def _start(page: str) -> int:
    return next(n for n, line in enumerate(page.split("\n")) if _MARKER in line)


def _read(line: str) -> tuple[str, str]:
    item = _ITEM.fullmatch(line)
    return (item["ticked"] or item["plain"], item["note"] or "") if item else ("", "")


def _item(message: str, note: str = "") -> str:
    return (f"- `` {message} ``" if "`" in message else f"- `{message}`") + note


def _place(lines: Sequence[str], found: Mapping[str, Sequence[Path]], files: Sequence[Path]) -> int:
    """After the last item of the section with most messages of the same or the nearest files."""
    near: Counter[tuple[int, int]] = Counter()  # of (folders in common, section)
    section, ends = 0, {}
    for number, line in enumerate(lines):
        if line.startswith("#"):
            section = number
        message, _ = _read(line)
        for file in found.get(message, ()):
            ends[section] = number + 1
            near[max(_in_common(file, own) for own in files), section] += 1
    if not near:
        return len(lines)
    closest = max(depth for depth, _ in near)
    _, best = max((count, section) for (depth, section), count in near.items() if depth == closest)
    return ends[best]


def _in_common(first: Path, second: Path) -> int:
    """Leading parts of two paths that are the same."""
    return sum(
        1
        for _ in takewhile(
            lambda pair: pair[0] == pair[1], zip(first.parts, second.parts, strict=False)
        )
    )


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = updated(before, messages())
    PAGE.write_text(after, encoding="utf-8")
    for message in sorted(listed(before).keys() - listed(after).keys()):
        print(f"- {message}")
    for message in sorted(listed(after).keys() - listed(before).keys()):
        print(f"+ {message}")
