"""What the source distribution holds, and that a wheel built from it is the checkout's wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from places import REPOSITORY

pytest.importorskip("setuptools", minversion="77")

COPIED = (
    *("hf_token_compress", "kernels", "lab", "tests", "docs", "notebooks"),
    *("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg"),
)
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which large data files are empty, which builds faster."""
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, root / name, symlinks=True, ignore=ignored, copy_function=copy_small
            )
        else:
            shutil.copy(source, root / name)
    return root


def copy_small(source: str, target: str) -> None:
    if source.endswith(".py") or os.path.getsize(source) < 2**16:
        shutil.copy(source, target)
    else:
        Path(target).touch()


def build(what: str, source: Path, folder: Path) -> Path:
    command = [sys.executable, "-c", BUILD, what, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("build_sdist", checkout, folder)) as archive:
        archive.extractall(folder, filter="data")
    (root,) = (path for path in folder.iterdir() if path.is_dir())
    return root


def test_the_source_distribution_has_neither_tests_nor_laboratory(unpacked: Path) -> None:
    folders = {path.name for path in unpacked.iterdir() if path.is_dir()}
    assert folders == {"hf_token_compress", "hf_token_compress.egg-info", "kernels"}
    assert (unpacked / "LICENSE").is_file()


def test_the_source_distribution_has_what_the_kernel_builder_reads(unpacked: Path) -> None:
    for name in ("build.toml", "flake.nix", "CARD.md", "torch-ext/token_compression/__init__.py"):
        assert (unpacked / "kernels" / name).is_file(), name


def test_both_wheels_hold_the_same_files(checkout: Path, unpacked: Path, tmp_path: Path) -> None:
    contents = []
    for source in (checkout, unpacked):
        folder = tmp_path / source.name
        folder.mkdir()
        with zipfile.ZipFile(build("build_wheel", source, folder)) as wheel:
            contents.append({entry.filename: entry.CRC for entry in wheel.infolist()})
    assert contents[0] == contents[1]
    assert "hf_token_compress/kernels/tiles.py" in contents[0]
    assert not [name for name in contents[0] if "benchmarks" in name]


def test_the_links_of_the_published_readme_lead_to_the_repository(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "![what is kept](docs/images/kept.png) [docs](docs/usage.md#settings), [here](#use), "
        "[paper](https://arxiv.org/abs/2506.01097)\n\n```python\nscorers[0](image)\n```\n"
    )
    program = REPOSITORY / ".ci" / "absolute_links.py"
    address = "https://github.com/owner/name"
    subprocess.run([sys.executable, program, page, address, "v1.2.3"], check=True)
    assert page.read_text() == (
        f"![what is kept]({address}/raw/v1.2.3/docs/images/kept.png) "
        f"[docs]({address}/blob/v1.2.3/docs/usage.md#settings), [here](#use), "
        "[paper](https://arxiv.org/abs/2506.01097)\n\n```python\nscorers[0](image)\n```\n"
    )
