"""Chat about images with a cache that is kept from turn to turn.

    python examples/chat.py
    python examples/chat.py --model Qwen/Qwen2.5-VL-3B-Instruct photo.jpg "What is this?" "Where?"

Only the new tokens of a turn run through the model. Arguments that are files are images, and all
others are questions; an image belongs to the question after it, which decides which of its tokens
are kept. Later questions see only these, so keep more of them than for a single question.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache

import hf_token_compress  # noqa: F401  (from_pretrained now takes token_compression=)
from hf_token_compress.data.scenes import make_scene
from hf_token_compress.tiny import own_mapper, resolve_model

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("said", nargs="*", metavar="IMAGE|QUESTION")
parser.add_argument("--model", default="tiny-qwen2-vl", help="a Hub id, a folder or a tiny model")
parser.add_argument("--retention-ratio", type=float, default=0.5)
parser.add_argument("--max-new-tokens", type=int, default=64)
args = parser.parse_args()

said = [
    ImageOps.exif_transpose(Image.open(part)).convert("RGB") if Path(part).is_file() else part
    for part in args.said
] or [  # what the embedded model knows
    make_scene(6, rows=4, columns=4, split="test").image,
    "What is left of the coffee?",
    "Where is the castle?",
    "What colour is behind the burger?",
    make_scene(7, rows=4, columns=4, split="test").image,
    "What is at row 2, column 1?",
]

if isinstance(said[-1], Image.Image):
    parser.error("a question must follow the last image")

model = AutoModelForImageTextToText.from_pretrained(
    resolve_model(args.model),
    dtype="auto",
    token_compression={
        "retention_ratio": args.retention_ratio,
        "mapper": own_mapper(args.model),  # None unless the model comes with a mapper
    },
).to("cuda" if torch.cuda.is_available() else "cpu")
processor = AutoProcessor.from_pretrained(resolve_model(args.model))

cache, sequence = DynamicCache(), None
conversation, content, turns = [], [], []
for part in said:
    if isinstance(part, Image.Image):
        content.append({"type": "image", "image": part})
        continue
    conversation.append({"role": "user", "content": [*content, {"type": "text", "text": part}]})
    inputs = processor.apply_chat_template(
        conversation,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device, model.dtype)
    if sequence is not None:
        # Some templates write earlier turns in other tokens: then the cache does not fit.
        begins = inputs["input_ids"][:, : sequence.shape[1]]
        if not torch.equal(begins, sequence):
            cache = DynamicCache()
    known = cache.get_seq_length()
    sequence = model.generate(
        **inputs,
        max_new_tokens=args.max_new_tokens,
        do_sample=False,
        cache=cache,  # past_key_values=cache before Transformers 5.24
    )
    new_ids = sequence[0, inputs["input_ids"].shape[1] :]
    answer = processor.decode(new_ids, skip_special_tokens=True).strip()
    held = cache.get_seq_length()
    turns.append((part, answer, known, held))
    prompt = inputs["input_ids"].shape[1]
    print(f"> {part}\n{answer}")
    print(f"  (prompt of {prompt} tokens; in the cache: {known} before, {held} after)")
    conversation.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    content = []
