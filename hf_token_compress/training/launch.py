"""Accelerate, or a sentence on how to get it."""

try:
    from accelerate import Accelerator, PartialState
except ImportError as error:
    raise ImportError(
        "Collecting and training need the package accelerate: "
        'pip install "hf-token-compress[training]".'
    ) from error

__all__ = ["Accelerator", "PartialState"]
