"""Kernels, one sub-package each; their sources are in the folder `kernels/` of the repository."""
