"""Attention of the instruction rows in decoder layer 0, reduced over the rows."""

from .torch_reference import first_layer_attention

__all__ = ["first_layer_attention"]
