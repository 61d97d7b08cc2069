"""The notebooks run from top to bottom, and what is stored in them is fit to publish."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matrix import full_only
from nbclient.exceptions import CellExecutionError
from places import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
PROGRAM: dict[str, Any] = runpy.run_path(str(FOLDER / "execute.py"))
NOTEBOOKS: list[Path] = PROGRAM["NOTEBOOKS"]
LARGEST = 600 * 1024

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def stored_texts(path: Path) -> list[str]:
    """All text that is stored with a notebook's outputs."""
    texts = []
    for cell in code_cells(path):
        for output in cell.outputs:
            texts.append(output.get("text", ""))
            data = output.get("data", {})
            texts += [value for kind, value in data.items() if kind.startswith("text/")]
    return texts


def test_there_are_six() -> None:
    assert [path.stem.split("_")[0] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize(
    "path",
    [NOTEBOOKS[0], *(full_only(path) for path in NOTEBOOKS[1:])],
    ids=lambda path: path.stem,
)
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    done = PROGRAM["execute"](path, tmp_path)
    # The same cells draw an image as in what is stored.
    drawn = [
        any("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in done.cells
        if cell.cell_type == "code"
    ]
    stored = [
        any("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in code_cells(path)
    ]
    assert drawn == stored
    left = {item.name for item in tmp_path.iterdir()} - {".jupyter"}
    assert not left, "A notebook leaves nothing in the folder it runs in."


@each_notebook
def test_what_it_imports_is_there(path: Path) -> None:
    """Only the first notebook runs by default: this finds names that others no longer have."""
    source = "\n".join(cell.source for cell in code_cells(path)).replace("%pip", "pass  # %pip")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    assert any((node.module or "").startswith("hf_token_compress") for node in imports)
    exec(ast.unparse(ast.Module(imports, [])), {})


def test_a_failing_cell_fails_with_its_source_and_traceback(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    source = "import hf_token_compress\nhf_token_compress.no_such_name()"
    notebook.cells = [nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell("1")]
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError) as caught:
        PROGRAM["execute"](tmp_path / "broken.ipynb", tmp_path)
    assert source in str(caught.value)
    assert "AttributeError" in str(caught.value)


@each_notebook
def test_it_begins_with_an_installation_and_a_switch(path: Path) -> None:
    first, second, *others = (cell.source for cell in code_cells(path))
    assert 'find_spec("hf_token_compress") is None' in first
    (extras,) = set(re.findall(r"\[([\w,]+)\]", first))
    pyproject = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE)
    assert f'\nPACKAGE = "{PROGRAM["package_source"](extras)}"\n' in first, (
        "Run execute.py --links."
    )
    assert second.startswith("USE_HUB_MODEL = False")
    assert "Qwen/Qwen2.5-VL-3B-Instruct" in second
    assert '"float16"' in second
    assert '"sdpa"' in second
    assert not any("USE_HUB_MODEL =" in source for source in others)


@each_notebook
@pytest.mark.parametrize("where", ["installed", "clone", "elsewhere"])
def test_the_first_cell_installs_what_is_missing(
    where: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment that has the library, in a clone without it, and in Colab."""
    if where != "installed":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if where == "clone":
        (tmp_path / "hf_token_compress").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    installed: list[str] = []
    magic, names = "%pip install -q ", {"install": installed.append}
    first = code_cells(path)[0].source
    # IPython puts the value of a name into a magic's {name}.
    exec(re.sub(rf'{magic}"{{(\w+)}}"', r"install(\1)", first), names)
    extras = re.findall(r"\[[\w,]+\]", first)[0]
    assert (
        installed
        == {
            "installed": [],
            "clone": [f"..{extras}"],
            "elsewhere": [PROGRAM["package_source"](extras[1:-1])],
        }[where]
    )


@each_notebook
def test_what_is_stored(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    cells = code_cells(path)
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "stream",
        "execute_result",
        "display_data",
    }
    assert all(output.get("name") != "stderr" for output in outputs)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert nbformat.writes(PROGRAM["tidy"](nbformat.read(path, as_version=4))).strip() == (
        path.read_text(encoding="utf-8").strip()
    )


@each_notebook
def test_no_path_of_a_machine_is_stored(path: Path) -> None:
    for text in stored_texts(path):
        found = re.search(r"(?<![\w.<])/(?:home|root|tmp|usr|work|opt|var|Users|content)\b", text)
        assert found is None, text
        assert "site-packages" not in text


@each_notebook
def test_the_index_lists_it(path: Path) -> None:
    row = re.escape(f"({path.name})") + r".*\| [^|]+ \| \d+ s \|"
    assert re.search(row, (FOLDER / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [*NOTEBOOKS, FOLDER / "README.md"], ids=lambda path: path.stem)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if not link.startswith("https://"):
            assert (FOLDER / link.split("#")[0]).exists(), link


@each_notebook
def test_it_says_how_long_it_takes(path: Path) -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.search(rf"\({path.name}\).* (\d+ s) \|$", index, re.MULTILINE)
    assert listed is not None
    assert f"It takes {listed[1]} " in nbformat.read(path, as_version=4).cells[0].source


def test_one_line_takes_the_library_from_the_package_index() -> None:
    with pytest.MonkeyPatch.context() as patch:
        names = PROGRAM["package_source"].__globals__
        patch.setitem(names, "repository", lambda: "someone/else")
        assert PROGRAM["package_source"]("plots") == (
            "hf-token-compress[plots] @ git+https://github.com/someone/else"
        )
        patch.setitem(names, "PACKAGE", "hf-token-compress[{extras}]")
        assert PROGRAM["package_source"]("plots") == "hf-token-compress[plots]"


def contents(folder: Path) -> dict[str, str]:
    """All files that have links to the repository."""
    paths = [*folder.glob("*.ipynb"), folder / "README.md"]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_links_follow_the_address_of_the_repository(tmp_path: Path) -> None:
    copy = tmp_path / "notebooks"
    shutil.copytree(FOLDER, copy)
    project = tmp_path / "pyproject.toml"
    for text in (
        (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"),
        'Repository = "https://github.com/someone/else"\n',
        'Repository = "https://github.com/someone/another"\n',
        "",
    ):
        project.write_text(text, encoding="utf-8")
        program = runpy.run_path(str(copy / "execute.py"))
        program["main"](["--links"])
        found = contents(copy)
        if text and "someone" not in text:
            assert found == contents(FOLDER), "Run python notebooks/execute.py --links."
            continue
        address = program["repository"]()
        for name, content in found.items():
            colab = f"colab.research.google.com/github/{address}/blob/main/notebooks/"
            assert content.count("colab.research.google.com/github/") == content.count(colab)
            if name.endswith(".ipynb"):
                assert content.count(f"{colab}{name}") == (address is not None)
                source = f"git+https://github.com/{address}"
                assert (source in content) == (address is not None)
            else:
                assert content.count(colab) == len(NOTEBOOKS) * (address is not None)
