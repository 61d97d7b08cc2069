"""Importing this fails unless the version of vLLM is one that this plugin was tested with.

It relies on methods of vLLM that may change in any release, and wrong answers would not be noticed.
"""

from __future__ import annotations

import vllm
from packaging.version import Version

TESTED = ("0.32",)
"""Release series of vLLM."""


def check_version() -> None:
    """Raise `ImportError` unless this version of vLLM was tested."""
    version = Version(vllm.__version__)
    if f"{version.major}.{version.minor}" not in TESTED:
        raise ImportError(
            f"Token compression was tested with vLLM {', '.join(TESTED)} and may answer wrongly "
            f"with {vllm.__version__}: install 'vllm=={TESTED[-1]}.*', or serve the stock "
            "architecture."
        )


check_version()
