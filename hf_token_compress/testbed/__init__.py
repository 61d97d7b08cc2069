"""A small multimodal LLM of really pretrained parts, to judge scorers, mappers and teachers on."""

from __future__ import annotations
