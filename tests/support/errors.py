"""What an error must look like to a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def one_sentence(kind: type[Exception], *words: str) -> Iterator[None]:
    """The block fails with exactly this type, and with one sentence that has these words."""
    with pytest.raises(kind) as caught:
        yield
    assert caught.type is kind
    message = str(caught.value)
    assert message.endswith("."), message
    assert "\n" not in message, message
    assert ". " not in message, message
    for word in words:
        assert word in message
