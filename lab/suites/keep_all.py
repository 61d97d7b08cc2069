"""Pytest plugin: every model that Transformers' model tests make is compressed at ratio 1.0.

Load it with `-p lab.suites.keep_all` in a checkout of Transformers. Test classes say which model
classes they are about (`all_model_classes`); only these are changed, for the time of a test class.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from hf_token_compress import ModelFamily, compress, register_family, supported_families

SETTING = {"retention_ratio": 1.0, "min_visual_tokens": 0, "scorer": "attention"}


@pytest.fixture(scope="class", autouse=True)
def compressed_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compress what the class's model classes make, and what they load."""
    classes = getattr(request.cls, "all_model_classes", ())
    if not isinstance(classes, tuple | list):
        pytest.fail(f"{request.cls.__name__} does not name its model classes in the class itself.")
    with pytest.MonkeyPatch.context() as patch:
        for model_class in classes:
            _compress_models_of(model_class, patch)
        yield


def _compress_models_of(model_class: Any, patch: pytest.MonkeyPatch) -> None:
    model_type = model_class.config_class.model_type
    if model_type not in supported_families():
        register_family(model_type, ModelFamily)
    init = model_class.__init__
    load = model_class.from_pretrained.__func__

    @functools.wraps(init)
    def compressing_init(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        is_loaded_later = any(parameter.is_meta for parameter in self.parameters())
        if type(self) is model_class and not is_loaded_later:
            compress(self, SETTING)

    @functools.wraps(load)
    def compressing_load(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return load(cls, *args, token_compression=SETTING, **kwargs)

    patch.setattr(model_class, "__init__", compressing_init)
    patch.setattr(model_class, "from_pretrained", classmethod(compressing_load))
