"""A `forward` that a trainer puts on a compressed model.

It may call the model under the head and compute the loss itself. The model under the head gets no
labels then, but they say where the answer begins.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from types import MethodType
from typing import Any

from torch import Tensor

# A model, and the labels that its replaced forward was called with.
_CALL: ContextVar[tuple[object, Tensor | None]] = ContextVar("call", default=(None, None))


def noting_labels(forward: MethodType) -> MethodType:
    """The same method of a model, which also leaves its labels to `noted_labels` while it runs."""
    function = forward.__func__

    @functools.wraps(function)
    def noting(model: Any, *args: Any, **kwargs: Any) -> Any:
        labels = kwargs.get("labels")
        if labels is None:
            return function(model, *args, **kwargs)
        token = _CALL.set((model, labels))
        try:
            return function(model, *args, **kwargs)
        finally:
            _CALL.reset(token)

    return MethodType(noting, forward.__self__)


def noted_labels(inner: Any) -> Tensor | None:
    """Labels, int64 [B, S], of a running call of the model whose inner model this is, or None."""
    model, labels = _CALL.get()
    # Both carry the same setting; a compiled inner model is another object than the model's part.
    return labels if getattr(model, "_compression", None) is inner._compression else None
