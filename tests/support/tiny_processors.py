"""Real processors of Transformers without a checkpoint: a tokenizer of a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiny_models import PADDING, TEXT_IDS, TURN_END
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

UNKNOWN = TEXT_IDS


def word_tokenizer(special: Mapping[str, int], **named: str) -> Any:
    """A tokenizer of the words w0 to w79 and these special tokens.

    Args:
        special: Ids of the special tokens of a family.
        named: Which of them are attributes of the tokenizer, such as `image_token="<image>"`,
            which also gives it an `image_token_id`.
    """
    words = {f"w{number}": number for number in range(TEXT_IDS)}
    ends = {"<unknown>": UNKNOWN, "<end>": TURN_END, "<padding>": PADDING}
    model = Tokenizer(WordLevel({**words, **ends, **special}, unk_token="<unknown>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unknown>",
        eos_token="<end>",
        pad_token="<padding>",
        extra_special_tokens={**named, **{f"token_{own}": own for own in special}},
    )
