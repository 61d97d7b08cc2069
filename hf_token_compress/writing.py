"""Write files whole or not at all, whoever else writes or stops meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted
    fcntl = None  # type: ignore[assignment]


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write files; none is replaced before all are on the disk.

    Raises:
        OSError: One cannot be written; the message names it, and all files are as they were.
    """
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        parts = {path: stack.enter_context(_part(path, files[path])) for path in files}
        for path, part in parts.items():
            os.replace(part, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object whole or not at all, as `write_whole` does."""
    write_whole({path: (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()})


def clear_parts(folder: Path) -> None:
    """Delete what stopped processes have left of their files, but not what others write now."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if fcntl is None:
                part.unlink()
                continue
            with part.open("r+b") as file:
                # Fails while the process that writes it lives.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()


@contextmanager
def _part(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with this content, on the disk and locked; deleted if it is left."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    file: IO[bytes] | None = None
    try:
        try:
            file = _locked(part)
            _fill(file, content)
            if fcntl is None:
                file.close()
        except OSError as error:
            reason = error.strerror or str(error)
            failed = type(error)(
                f"{str(path)!r} cannot be written ({reason}): what was there is unchanged, so make "
                "that possible and run it again, which goes on from there."
            )
            failed.errno = error.errno
            raise failed from error
        yield part
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()
            part.unlink(missing_ok=True)


def _locked(part: Path) -> IO[bytes]:
    """A new file, open for writing and locked where there are locks."""
    while True:
        file = part.open("wb")
        if fcntl is None:
            return file
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        # Another process may have taken it for a stray one before it was locked.
        if part.exists():
            return file
        file.close()


def _fill(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
