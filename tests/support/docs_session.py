"""Run code blocks of documents in a process of its own; prints one JSON line a document.

The Hub client reads where the Hub is on import: only a new process obeys the variables.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import traceback
from typing import Any

from code_blocks import command_lines

PROGRAM = "hf-token-compress"


def run_command(line: str) -> None:
    """One command of a shell block; only hf-token-compress, with its output to a file perhaps."""
    from hf_token_compress.cli import app

    words = shlex.split(line, comments=True)
    output = io.StringIO()
    file = None
    if ">" in words:
        words, (file,) = words[: words.index(">")], words[words.index(">") + 1 :]
    if words[0] != PROGRAM:
        raise ValueError(f"This block cannot be run here, mark it as not run: {line}")
    with contextlib.redirect_stdout(output):
        code = app(words[1:], standalone_mode=False)
    if code:
        raise RuntimeError(f"{line!r} exits with {code}.")
    if file is not None:
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(output.getvalue())


def run_document(request: dict[str, Any]) -> str | None:
    """All blocks of one document in one namespace; what went wrong, or None."""
    os.makedirs(request["folder"])
    os.chdir(request["folder"])
    for name, content in request["files"].items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as stream:
            stream.write(bytes.fromhex(content))
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, language, text in request["blocks"]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                if language == "python":
                    # Tracebacks count lines as the document does.
                    exec(compile("\n" * (line - 1) + text, request["name"], "exec"), names)
                else:
                    for command in command_lines(text):
                        run_command(command)
        except BaseException:
            return f"{request['name']}:{line}\n{traceback.format_exc()}"
    return None


def shorten_calibrations() -> None:
    """Run a few of the 500 updates of a calibration: the rest would show nothing more."""
    from hf_token_compress.training import calibration

    calibration._STEPS = 10


if __name__ == "__main__":
    shorten_calibrations()
    results = sys.stdout
    for text in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            found = run_document(json.loads(text))
        print(json.dumps(found), file=results, flush=True)
