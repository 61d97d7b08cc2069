"""Families that nothing is known of but what can be read off the model."""

from __future__ import annotations

from .family import ModelFamily


class GenericFamily(ModelFamily):
    """A model with `mm_encoder_outputs` that is neither built in nor registered.

    Its first compressed prompt is checked against the stock forward.
    """
