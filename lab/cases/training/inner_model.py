"""A trainer that calls the inner model trains on compressed prompts.

TRL's `SFTTrainer` calls `model.base_model(...)` and takes the logits of its hidden states itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..common import WHAT, encode, extended, image, make_pair
from ..outcome import failure, report

ANSWER = "cherry"


def problems() -> Iterator[str]:
    """Call the model under the head in training mode, as TRL does, and look at the report."""
    for family in ("qwen2-vl", "llava-onevision"):
        _, model, processor = make_pair(family)
        prompts = [(image(number), WHAT) for number in range(2)]
        inputs = encode(processor, *prompts)
        answer = processor.tokenizer(ANSWER, return_tensors="pt", add_special_tokens=False)
        inputs = extended(inputs, answer.input_ids.expand(2, -1))
        model.train()
        try:
            states = model.base_model(**inputs, use_cache=False).last_hidden_state
            model.lm_head(states).float().logsumexp(-1).mean().backward()
        except Exception as error:
            yield f"{family}: {failure(error)}"
            continue
        if model.token_compression.last is None:
            yield f"{family}: {states.shape[1]} tokens, trained without compression"


if __name__ == "__main__":
    report(problems)
