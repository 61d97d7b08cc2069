"""Run the notebooks from top to bottom and store what they print and draw.

    python notebooks/execute.py              # all of them
    python notebooks/execute.py 04_video     # one
    python notebooks/execute.py --links      # only the links, after a change of the address

The first cell of a notebook installs the library where it is missing: from the checkout that the
notebook is in, or else, as in Colab, from what `PACKAGE` names. The address of the repository is
`Repository` under `[project.urls]` in pyproject.toml. Where it is set, this program adds badges
that lead to Colab.

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

PACKAGE = "hf-token-compress[{extras}] @ git+https://github.com/{repository}"
"""Installed outside a checkout. On the package index: "hf-token-compress[{extras}]"."""

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("[0-9]*.ipynb"))
SECONDS_PER_CELL = 600
_COLAB = "https://colab.research.google.com"
_BADGE = f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]({_COLAB}/github/"
_INSTALLED = re.compile(r'PACKAGE = "hf-token-compress\[([\w,]+)\][^"]*"')
_LISTED = re.compile(r"(\[[^]]+\]\((\d\d_\w+\.ipynb)\))(?: \[!\[Open in Colab\]\S*)?")
_COLOURS = 128


def repository() -> str | None:
    """Owner and name on GitHub, as pyproject.toml has them; None where it has no address."""
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$', text, re.MULTILINE)
    return None if found is None else found[1]


def execute(path: Path, folder: Path) -> Any:
    """Run all cells of a notebook with this interpreter, offline, in an empty folder.

    Args:
        path: The notebook; its file is left as it is.
        folder: Where it runs, and where Jupyter's own files go.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; it holds its source and traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    # Only this interpreter's kernel, whatever is installed on the machine.
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
    # A kernel of a given manager would otherwise live as long as this process.
    client.execute(env=environment, cwd=str(folder), cleanup_kc=True)
    return notebook


def tidy(notebook: Any) -> Any:
    """Leave out what changes from run to run and means nothing, and make images small."""
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
                    _shrink_image(output.data)
    return notebook


def badge(name: str) -> str | None:
    """A badge that opens a notebook in Colab; None where the repository has no address."""
    address = repository()
    return None if address is None else f"{_BADGE}{address}/blob/main/notebooks/{name})"


def package_source(extras: str) -> str:
    """What pip installs outside a checkout; from the package index while there is no address."""
    address = repository()
    source = "hf-token-compress[{extras}]" if address is None else PACKAGE
    return source.format(extras=extras, repository=address)


def link_notebook(notebook: Any, name: str) -> Any:
    """Set the badge below the title, and where the first code cell installs the library from."""
    first = notebook.cells[0]
    title, *rest = first.source.split("\n\n")
    rest = [part for part in rest if not part.startswith(_BADGE)]
    first.source = "\n\n".join(filter(None, [title, badge(name), *rest]))
    install = next(cell for cell in notebook.cells if cell.cell_type == "code")
    install.source = _INSTALLED.sub(
        lambda found: f'PACKAGE = "{package_source(found[1])}"', install.source
    )
    return notebook


def link_index(text: str) -> str:
    """Set a badge behind every notebook that the index lists."""
    return _LISTED.sub(lambda found: " ".join(filter(None, [found[1], badge(found[2])])), text)


def set_links() -> None:
    """Set all links of the notebooks and their index to the repository's address."""
    for path in NOTEBOOKS:
        nbformat.write(link_notebook(nbformat.read(path, as_version=4), path.name), path)
    index = HERE / "README.md"
    index.write_text(link_index(index.read_text(encoding="utf-8")), encoding="utf-8")


def _shrink_image(data: Any) -> None:
    if "image/png" not in data:
        return
    data.pop("image/jpeg", None)  # Pillow offers both
    with Image.open(BytesIO(base64.b64decode(data["image/png"]))) as image:
        if image.mode == "P":  # it has few colours already
            return
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
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
    set_links()
    if options.links:
        return
    for path in NOTEBOOKS:
        if options.names and path.stem not in options.names:
            continue
        before = os.times()
        with tempfile.TemporaryDirectory() as folder:
            notebook = tidy(execute(path, Path(folder)))
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        # Of one core, since the kernel has one thread; other work on the machine does not count.
        after = os.times()
        seconds = after.children_user + after.children_system
        seconds -= before.children_user + before.children_system
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {seconds:.0f} s of one core")


if __name__ == "__main__":
    main()
