"""Run the notebooks from top to bottom and store what they print and draw.

    python notebooks/execute.py              # all of them
    python notebooks/execute.py 04_video     # one
    python notebooks/execute.py --links      # only the links: after a change of the address

The address of the repository, in links to Colab and in the cells that install the library, is that
of `[project.urls]` in pyproject.toml; this program puts it in.

Needs the library with its extra `test`, and no network.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("[0-9]*.ipynb"))
SECONDS_PER_CELL = 600
_ADDRESS = re.compile(
    r"(git\+https://github\.com/|colab\.research\.google\.com/github/)[\w.-]+/[\w-]+"
)
_COLOURS = 128


def repository() -> str:
    """Owner and name on GitHub, as pyproject.toml tells them.

    Raises:
        ValueError: It does not tell them.
    """
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("pyproject.toml has no Repository under [project.urls].")
    return found[1]


def execute(path: Path, folder: Path) -> Any:
    """Run all cells of a notebook with this interpreter, offline, in an empty folder.

    Args:
        path: The notebook; its file is left as it is.
        folder: Where it runs, and where Jupyter's own files go.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; tells its source and traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    # No kernel but that of this interpreter, whatever is installed on the machine.
    kernels = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels)
    own = folder / ".jupyter"
    environment = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": str(own),
    }
    client = NotebookClient(notebook, km=manager, timeout=SECONDS_PER_CELL, coalesce_streams=True)
    client.execute(env=environment, cwd=str(folder))
    return notebook


def tidy(notebook: Any) -> Any:
    """Leave out what changes from run to run without telling anything, and make pictures small."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
        if cell.cell_type == "code":
            # Progress bars go to stderr.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("metadata", None)
                if "data" in output:
                    output.metadata = {}
                    _shrink_picture(output.data)
    return notebook


def set_links(text: str) -> str:
    """The text with the repository's address in all links to it."""
    return _ADDRESS.sub(lambda found: found[1] + repository(), text)


def _shrink_picture(data: Any) -> None:
    if "image/png" not in data:
        return
    data.pop("image/jpeg", None)  # Pillow offers both
    with Image.open(BytesIO(base64.b64decode(data["image/png"]))) as picture:
        if picture.mode == "P":  # it has few colours already
            return
        few = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    content = BytesIO()
    few.save(content, format="PNG", optimize=True)
    data["image/png"] = base64.b64encode(content.getvalue()).decode("ascii")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [path.stem for path in NOTEBOOKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--links", action="store_true", help="set the links and run nothing")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"there is no notebook {unknown[0]!r}")
    for path in [*NOTEBOOKS, HERE / "README.md"]:
        text = path.read_text(encoding="utf-8")
        if (linked := set_links(text)) != text:
            path.write_text(linked, encoding="utf-8")
    if options.links:
        return
    for path in NOTEBOOKS:
        if options.names and path.stem not in options.names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = tidy(execute(path, Path(folder)))
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
