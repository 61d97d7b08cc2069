"""lmms-eval imports our entry point in every run, so it must be cheap and cannot fail."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

MODULE = "hf_token_compress.integrations.lmms_eval"
HEAVY = ("torch", "transformers", "accelerate", "hf_token_compress.models", f"{MODULE}.model")


def modules_after(code: str) -> set[str]:
    """All modules of a new process that ran the code."""
    code += "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_without_lmms_eval() -> None:
    # None in `sys.modules` makes the import of an installed lmms-eval fail, too.
    loaded = modules_after(f"import sys; sys.modules['lmms_eval'] = None; import {MODULE}")
    assert MODULE in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None,
    reason="lmms-eval is not installed: it has an environment of its own (see .ci/run)",
)
def test_lmms_eval_lists_the_model() -> None:
    loaded = modules_after(
        "from lmms_eval.models import list_available_models; "
        "assert 'hf_token_compress' in list_available_models()"
    )
    assert MODULE in loaded
    assert loaded.isdisjoint(HEAVY)
