"""The model under the head compresses too when it is called directly, or says that it does not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from ..common import FAMILIES, WHAT, encode, image, make_pair
from ..outcome import report


def problems() -> Iterator[str]:
    """Call `base_model` with the processor's inputs."""
    for family in FAMILIES:
        _, model, processor = make_pair(family)
        inputs = encode(processor, (image(1), WHAT))
        with warnings.catch_warnings(record=True) as warned, torch.no_grad():
            warnings.simplefilter("always")
            states = model.base_model(**inputs).last_hidden_state
        if model.token_compression.last is None and not warned:
            yield f"{family}: {states.shape[1]} tokens, neither compression nor a warning"


if __name__ == "__main__":
    report(problems)
