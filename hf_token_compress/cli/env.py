"""`hf-token-compress env`: the versions to paste into a bug report."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from .._version import __version__
from .errors import one_sentence_errors
from .options import JsonFlag

_PACKAGES = (
    *("torch", "transformers", "triton", "accelerate", "huggingface-hub", "safetensors"),
    *("tokenizers", "pillow", "av", "matplotlib"),
)


@one_sentence_errors
def env(as_json: JsonFlag = False) -> None:
    """Print the versions of the library and of what it uses, for bug reports."""
    found = {
        "hf_token_compress": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version_of(name) for name in _PACKAGES},
        "accelerators": _accelerators(),
    }
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        shown = ", ".join(value) or "none" if isinstance(value, list) else value
        typer.echo(f"{name}: {shown or 'not installed'}")


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _accelerators() -> list[str]:
    try:
        import torch

        found = torch.accelerator.current_accelerator(check_available=True)
        if found is None:
            return []
        name_of = getattr(torch.get_device_module(found), "get_device_name", lambda number: "")
        return [
            f"{found.type}:{number} {name_of(number)}".strip()
            for number in range(torch.accelerator.device_count())
        ]
    except (ImportError, OSError, RuntimeError) as error:
        # A report must not fail because of what it reports.
        return [f"unknown ({type(error).__name__}: {error})"]
