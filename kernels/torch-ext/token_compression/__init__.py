"""Kernels, one sub-package each: Triton on GPUs, chunked torch everywhere else.

Their sources are in the folder `kernels/` of the repository, laid out for Hugging Face's kernel
builder. Installed with the library they are `hf_token_compress.kernels`.
"""

from . import instruction_attention, relevance_step

__all__ = ["instruction_attention", "relevance_step"]
