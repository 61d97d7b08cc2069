"""`compress` and `uncompress` work after Accelerate's hooks were added and removed again."""

from __future__ import annotations

from collections.abc import Iterator

from accelerate import dispatch_model
from accelerate.hooks import remove_hook_from_submodules

from hf_token_compress import compress, uncompress

from ..outcome import failure, report
from ..random_models import qwen2_vl, setting


def problems() -> Iterator[str]:
    """Add and remove hooks on a compressed model and on a stock one."""
    for what in ("uncompress", "compress"):
        model = qwen2_vl()
        if what == "uncompress":
            compress(model, setting(0.5))
        dispatch_model(model, {"": "cpu"}, force_hooks=True)
        remove_hook_from_submodules(model)
        try:
            if what == "compress":
                compress(model, setting(0.5))
            else:
                uncompress(model)
        except ValueError as error:
            yield f"{what}: {failure(error)}"


if __name__ == "__main__":
    report(problems)
