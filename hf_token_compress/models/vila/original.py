"""Load a published VILA1.5 checkpoint: three folders under a root config."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from .configuration import VilaConfig
from .names import ORIGINAL_MODEL_TYPE
from .original_files import find_original_folder, hub_options, read_json, token_ids
from .original_weights import read_weights

# Keywords of `from_pretrained` for the configuration; the dtype is for loading the weights.
_CONFIG_FIELDS = {field.name for field in dataclasses.fields(VilaConfig)} - {"dtype"}
# Besides `</s>`, these close a turn in the conversations that VILA1.5 was trained on.
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>")


def is_original(location: str | Path, **options: Any) -> bool:
    """Whether a folder or Hub id holds a checkpoint in the published layout."""
    try:
        settings, _ = PreTrainedConfig.get_config_dict(location, **options)
    except OSError:
        return False  # Transformers reports the error, or finds the model behind an adapter.
    return settings.get("model_type") == ORIGINAL_MODEL_TYPE


class ReadsOriginalCheckpoints:
    """Mixin in front of a stock class: `from_pretrained` reads the published layout too."""

    config_class: Any

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Load a model from a folder or Hub id in this library's format or the published one.

        Arguments and result are those of every Transformers model.

        Raises:
            NotImplementedError: This kind of checkpoint is not supported.
            OSError: A part is missing or damaged.
            ValueError: The parts do not fit each other.
        """
        stock = super().from_pretrained  # type: ignore[misc]
        location = pretrained_model_name_or_path
        if location is None or not is_original(location, **hub_options(kwargs)):
            return stock(location, *model_args, config=config, **kwargs)
        folder = find_original_folder(location, **hub_options(kwargs))
        for name in ("revision", "subfolder", "_commit_hash"):
            kwargs.pop(name, None)
        if not isinstance(config, PreTrainedConfig):
            own = {name: kwargs.pop(name) for name in _CONFIG_FIELDS & kwargs.keys()}
            config = VilaConfig.from_pretrained(folder if config is None else config, **own)
        config = copy.deepcopy(config)
        place_placeholders(config, folder)
        state_dict = read_weights(cls, config, folder)
        kwargs.setdefault("generation_config", _generation_config(folder))
        loaded = stock(None, *model_args, config=config, state_dict=state_dict, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config.name_or_path = str(location)
        return loaded


def place_placeholders(config: VilaConfig, folder: Path) -> None:
    """Give the placeholders the first ids that neither language model nor tokenizer has."""
    size: int = read_json(folder / "llm" / "config.json")["vocab_size"]
    first = max(size, *(number + 1 for number in token_ids(folder).values()), 0)
    config.image_token_index, config.video_token_index = first, first + 1
    config.text_config.vocab_size = first + 2
    config.unpredicted_token_ids = list(range(size, first + 2))


def _generation_config(folder: Path) -> GenerationConfig:
    """The language model's generation config; the token that closes a turn ends an answer too."""
    try:
        generation_config = GenerationConfig.from_pretrained(folder / "llm")
    except OSError:
        generation_config = GenerationConfig.from_pretrained(
            folder / "llm", config_file_name="config.json", _from_model_config=True
        )
    ids = token_ids(folder)
    ends = generation_config.eos_token_id
    ends = list(ends) if isinstance(ends, list) else [ends] if ends is not None else []
    ends += [ids[mark] for mark in _TURN_ENDS if mark in ids and ids[mark] not in ends]
    generation_config.eos_token_id = ends if len(ends) != 1 else ends[0]
    return generation_config
