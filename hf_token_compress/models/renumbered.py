"""Models whose stock `generate` drops position ids: EXAONE 4.5, HyperCLOVA X SEED."""

from __future__ import annotations

from .family import ModelFamily


class RenumberedFamily(ModelFamily):
    """Kept tokens cannot keep their position ids."""

    renumbers_tokens = True
