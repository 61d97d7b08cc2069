"""What is installed, what importing costs, and what it changes in Transformers."""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path

import pytest
from matrix import full_only
from packaging.requirements import Requirement
from pairs import make_pair
from places import REPOSITORY, SUPPORT
from tiny_models import RAGGED, make_inputs

import hf_token_compress

pytestmark = pytest.mark.core


def run_python(code: str, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_kernels_in_the_repository_finds_an_installed_package(tmp_path: Path) -> None:
    """Hugging Face's package has that name; a folder without `__init__.py` gives way to it."""
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text("installed = True\n")
    code = "import kernels; print(kernels.installed, kernels.__file__)"
    printed = run_python(code, REPOSITORY, PYTHONPATH=str(tmp_path))
    assert printed == f"True {package / '__init__.py'}"


def test_import_kernels_in_the_repository_finds_nothing_of_ours(tmp_path: Path) -> None:
    """Without an installed package of that name, a folder still has that name."""
    code = (
        "import importlib.util, kernels, pkgutil\n"
        "ours = importlib.util.find_spec('kernels.instruction_attention')\n"
        "print(kernels.__file__, list(pkgutil.iter_modules(kernels.__path__)), ours)"
    )
    if run_python("import importlib.util as u; print(u.find_spec('kernels'))", tmp_path) != "None":
        pytest.skip("A package named kernels is installed.")
    assert run_python(code, REPOSITORY) == "None [] None"


def test_transformers_does_not_take_our_kernels_for_that_package(tmp_path: Path) -> None:
    code = "from transformers.utils import is_kernels_available as found; print(found())"
    assert run_python(code, REPOSITORY) == run_python(code, tmp_path)


def test_the_kernels_are_installed_inside_the_library(tmp_path: Path) -> None:
    module = "hf_token_compress.kernels.instruction_attention"
    code = f"import {module} as kernel; print(kernel.instruction_attention.__module__)"
    assert run_python(code, tmp_path).startswith("hf_token_compress.kernels.")


def test_importing_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys, hf_token_compress\n"
        "hf_token_compress.TokenCompressionConfig()\n"
        "heavy = {'torch', 'transformers', 'PIL', 'numpy', 'peft', 'accelerate', 'triton'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python(code, tmp_path) == "[]"


def test_all_names_are_there_without_accelerate(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['accelerate'] = None\n"
        "from hf_token_compress import *\n"
        "try:\n    calibrate(None, None, [])\n"
        "except ImportError as error:\n    print(error)"
    )
    assert "hf-token-compress[training]" in run_python(code, tmp_path)


WITHOUT_TRITON = """
import importlib, pkgutil, sys
sys.modules["triton"] = None
sys.path.insert(0, sys.argv[1])
import hf_token_compress, pairs, tiny_models
for module in pkgutil.walk_packages(hf_token_compress.__path__, "hf_token_compress."):
    name = module.name.removeprefix("hf_token_compress.")
    of_triton = name.startswith("kernels.") and name.endswith(("launch", "kernel", "tiles"))
    needs_more = name.startswith(("app.", "integrations.")) or name.endswith("__main__")
    if not of_triton and not needs_more:
        importlib.import_module(module.name)
model = hf_token_compress.compress(tiny_models.tiny_model(), pairs.QUARTER)
inputs = tiny_models.make_inputs(tiny_models.RAGGED)
print(model.generate(**inputs, max_new_tokens=3).tolist())
"""


def test_everything_else_works_without_triton(tmp_path: Path) -> None:
    """As on macOS and Windows, and beside a torch that is made for CPUs."""
    script = tmp_path / "without_triton.py"
    script.write_text(WITHOUT_TRITON)
    code = f"import sys, runpy; sys.argv[1:] = [{str(SUPPORT)!r}]; runpy.run_path({str(script)!r})"
    generated = json.loads(run_python(code, tmp_path).splitlines()[-1])
    inputs = make_inputs(RAGGED)
    assert generated == make_pair().compressed.generate(**inputs, max_new_tokens=3).tolist()


CHANGES = """
import importlib, json, sys
import transformers
from transformers import AutoModel, AutoModelForImageTextToText, PreTrainedConfig
from transformers.models.qwen2_vl import modeling_qwen2_vl

def attributes():
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module is None or module_name.split(".")[0] not in ("transformers", "torch"):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == module_name:
                for attribute, content in list(vars(value).items()):
                    found[f"{module_name}.{name}.{attribute}"] = id(content)
            elif callable(value) and getattr(value, "__module__", None) == module_name:
                found[f"{module_name}.{name}"] = id(value)
    return found

before = attributes()
import hf_token_compress
import hf_token_compress.models, hf_token_compress.scorers
sys.path.insert(0, sys.argv[1])
import pairs, tiny_models
keep = hf_token_compress.compress(tiny_models.tiny_model(), pairs.QUARTER)
inputs = tiny_models.make_inputs(tiny_models.RAGGED)
keep(**inputs)
keep.generate(**inputs, max_new_tokens=2)
hf_token_compress.uncompress(keep)
after = attributes()
ignored = ("__abstractmethods__", "_abc_impl", "__annotations_cache__", "__static_attributes__")
print(json.dumps(sorted(
    name for name, value in before.items()
    if after.get(name) != value and not name.endswith(ignored)
)))
"""


def test_nothing_but_from_pretrained_is_changed_globally(tmp_path: Path) -> None:
    tests = str(SUPPORT)
    script = tmp_path / "changes.py"
    script.write_text(CHANGES)
    code = f"import sys, runpy; sys.argv[1:] = [{tests!r}]; runpy.run_path({str(script)!r})"
    changed = json.loads(run_python(code, tmp_path).splitlines()[-1])
    assert changed == ["transformers.modeling_utils.PreTrainedModel.from_pretrained"]


@pytest.mark.parametrize(
    "order",
    [
        "import hf_token_compress; from transformers import PreTrainedModel",
        full_only("from transformers import PreTrainedModel; import hf_token_compress"),
    ],
    ids=["before_transformers", "after_transformers"],
)
def test_from_pretrained_is_wrapped_once_whatever_is_imported_first(
    order: str, tmp_path: Path
) -> None:
    code = (
        f"{order}\n"
        "import importlib, inspect\n"
        "first = PreTrainedModel.from_pretrained.__func__\n"
        "importlib.reload(hf_token_compress)\n"
        "from hf_token_compress.compression.pretrained import accept_token_compression\n"
        "accept_token_compression(PreTrainedModel)\n"
        "assert PreTrainedModel.from_pretrained.__func__ is first\n"
        "assert not hasattr(first.__wrapped__, '__wrapped__') or first.__wrapped__.__module__"
        ".startswith('transformers')\n"
        "depth, function = 0, first\n"
        "while function.__code__.co_filename.endswith('compression/pretrained.py'):\n"
        "    depth, function = depth + 1, function.__wrapped__\n"
        "print(depth, inspect.getdoc(function) in PreTrainedModel.from_pretrained.__doc__)"
    )
    assert run_python(code, tmp_path) == "1 True"


def test_public_names_exist() -> None:
    """Of every module that lists them; ruff sees to their docstrings."""
    for module in pkgutil.walk_packages(hf_token_compress.__path__, "hf_token_compress."):
        if module.name.endswith("__main__"):
            continue
        # Adapters import the program that they are for, and are imported by it alone.
        if ".integrations." in module.name and find_spec(module.name.split(".")[2]) is None:
            continue
        if module.name.endswith((".app.page", ".app.inputs")) and find_spec("gradio") is None:
            continue
        loaded = importlib.import_module(module.name)
        missing = {name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)}
        assert missing == set(), module.name
        assert set(getattr(loaded, "__all__", ())) <= set(dir(loaded)), module.name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"hf_token_compress.*compres\b"):
        _ = hf_token_compress.compres


def test_every_package_of_the_checkout_is_listed_for_the_wheel() -> None:
    """An editable install finds a forgotten one all the same; a wheel would lack it."""
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    folders = [
        *(REPOSITORY / "hf_token_compress").rglob("__init__.py"),
        *(REPOSITORY / "kernels").rglob("__init__.py"),
    ]
    names = {".".join(file.parent.relative_to(REPOSITORY).parts) for file in folders}
    source = r"^kernels\.torch-ext\.token_compression\b"
    expected = {re.sub(source, "hf_token_compress.kernels", name) for name in names}
    assert set(settings["options"]["packages"].split()) == expected
    assert not (REPOSITORY / "kernels" / "__init__.py").exists()


def test_the_kernels_can_be_published_as_they_are() -> None:
    """Hugging Face's kernel builder: its layout, relative imports, nothing but torch and Triton."""
    settings = (REPOSITORY / "kernels" / "build.toml").read_text()
    name = re.search(r'^name = "([a-z][a-z0-9-]*[a-z0-9])"$', settings, re.MULTILINE)
    assert name is not None
    assert "\n[torch-noarch]\n" in settings
    package = REPOSITORY / "kernels" / "torch-ext" / name.group(1).replace("-", "_")
    assert (package / "__init__.py").is_file()
    allowed = {*sys.stdlib_module_names, "torch", "triton"}
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, file
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module is not None
                assert node.module.split(".")[0] in allowed, file


def test_the_installed_version_is_that_of_the_library() -> None:
    assert metadata.version("hf-token-compress") == hf_token_compress.__version__


def plain_requirements() -> set[str]:
    """Distributions that come without any extra."""
    required = metadata.requires("hf-token-compress") or []
    return {re.split(r"[^\w-]", item)[0] for item in required if "extra ==" not in item}


def test_a_plain_install_has_what_processors_need() -> None:
    """Transformers makes no processor of Qwen2-VL or LLaVA-OneVision without torchvision."""
    assert {"torch", "torchvision", "transformers"} <= plain_requirements()


def test_triton_is_required_on_linux_alone() -> None:
    """There are no wheels of it for macOS and Windows."""
    (triton,) = (own for own in metadata.requires("hf-token-compress") or [] if "triton" in own)
    marker = Requirement(triton).marker
    assert marker is not None
    systems = ("Linux", "Darwin", "Windows")
    found = [own for own in systems if marker.evaluate({"platform_system": own})]
    assert found == ["Linux"]


def test_files_that_the_library_needs_are_installed() -> None:
    for model in ("llava_onevision", "qwen2_vl", "qwen2_vl_video", "vila"):
        tiny = resources.files("hf_token_compress.tiny") / model
        for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
            assert (tiny / name).is_file(), name
    installed = Path(str(resources.files("hf_token_compress.tiny")))
    source = REPOSITORY / "hf_token_compress" / "tiny"
    mappers = {path.relative_to(source) for path in source.glob("*/mappers/**/*.*")}
    assert any(path.name == "model.safetensors" for path in mappers)
    assert {path.relative_to(installed) for path in installed.glob("*/mappers/**/*.*")} == mappers
    drawings = resources.files("hf_token_compress.data.scenes") / "drawings"
    names = {entry.name for entry in drawings.iterdir()}
    assert "LICENSES.md" in names
    assert any(name.endswith((".png", ".webp", ".npz")) for name in names)
    assert (resources.files("hf_token_compress") / "py.typed").is_file()


@pytest.mark.parametrize("model", ["llava_onevision", "qwen2_vl", "qwen2_vl_video", "vila"])
def test_the_tiny_models_are_small_enough_for_a_wheel(model: str) -> None:
    tiny = resources.files("hf_token_compress.tiny") / model
    sizes = [len(entry.read_bytes()) for entry in tiny.iterdir() if entry.is_file()]
    assert sum(sizes) <= 12 * 2**20
