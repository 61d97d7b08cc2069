"""The files of a Hub Space that runs the demo."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

from .._version import __version__
from ..writing import write_whole

_README = """\
---
title: Fewer visual tokens
emoji: ✂️
colorFrom: yellow
colorTo: blue
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: apache-2.0
short_description: Same answer with fewer visual tokens
---

Ask `{model}` with all and with fewer of its visual tokens, side by side: the demo of
hf_token_compress. The same page on your own machine: `hf-token-compress app`.
"""
_APP = """\
from hf_token_compress.cli import app

app({arguments!r})
"""


def write_space_files(folder: Path, model: str) -> list[Path]:
    """Write README.md, requirements.txt and app.py of a Space for a model.

    Args:
        folder: Where to write them.
        model: A Hub id, or the name of a tiny model.

    Returns:
        Paths of the files.

    Raises:
        OSError: They cannot be written.
    """
    released = "" if Version(__version__).is_devrelease else f"=={__version__}"
    texts = {
        "README.md": _README.format(gradio=version("gradio"), model=model),
        "requirements.txt": f"hf-token-compress[app,video]{released}\n",
        "app.py": _APP.format(arguments=["app", "--model", model]),
    }
    files = {folder / name: text.encode() for name, text in texts.items()}
    write_whole(files)
    return list(files)
