"""Making a model from the class or the config of a compressed model behaves as stock."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from transformers import AutoModelForImageTextToText

from ..outcome import failure, report
from ..random_models import compressed, qwen2_vl, qwen2_vl_inputs


def problems() -> Iterator[str]:
    """Make a model in three ways, and run, generate and save it."""
    model = compressed(qwen2_vl(), 1.0)
    ways: dict[str, Callable[[], Any]] = {
        "type(model)(config)": lambda: type(model)(model.config),
        "type(model)._from_config": lambda: type(model)._from_config(model.config),
        "AutoModel.from_config": lambda: AutoModelForImageTextToText.from_config(model.config),
    }
    for name, make in ways.items():
        try:
            made = make().eval()
            made(**qwen2_vl_inputs())
            made.generate(**qwen2_vl_inputs(), max_new_tokens=2)
            with tempfile.TemporaryDirectory() as folder:
                made.save_pretrained(folder)
        except Exception as error:
            yield f"{name}: {failure(error)}"


if __name__ == "__main__":
    report(problems)
