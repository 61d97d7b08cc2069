"""Ask one question about every image of a folder, several images at a time.

    python examples/batch_vqa.py
    python examples/batch_vqa.py photos --question "Who is it?" --model Qwen/Qwen2.5-VL-3B-Instruct

Prints one JSON object per image: its name, the answer, and how many visual tokens were kept.
Without a folder, it makes a few images that the embedded model knows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText, AutoProcessor

import hf_token_compress  # noqa: F401  (from_pretrained now takes token_compression=)
from hf_token_compress.data.scenes import make_scene
from hf_token_compress.tiny import own_mapper, resolve_model

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", nargs="?", type=Path, help="images to ask about")
parser.add_argument("--question", default="What is at row 2, column 1?")
parser.add_argument("--model", default="tiny-qwen2-vl", help="a Hub id, a folder or a tiny model")
parser.add_argument("--retention-ratio", type=float, default=0.25)
parser.add_argument("--batch-size", type=int, default=4)
parser.add_argument("--max-new-tokens", type=int, default=32)
args = parser.parse_args()

folder = args.folder
if folder is None:
    made = tempfile.TemporaryDirectory()  # removed at the end
    folder = Path(made.name)
    for number in range(6):
        make_scene(number, rows=4, columns=4 + number % 2, split="test").image.save(
            folder / f"{number}.png"
        )
paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
if not paths:
    parser.error(f"{folder} has no images ({', '.join(EXTENSIONS)})")

model = AutoModelForImageTextToText.from_pretrained(
    resolve_model(args.model),
    dtype="auto",
    token_compression={
        "retention_ratio": args.retention_ratio,
        "mapper": own_mapper(args.model),  # None unless the model comes with a mapper
    },
).to("cuda" if torch.cuda.is_available() else "cpu")
processor = AutoProcessor.from_pretrained(resolve_model(args.model))

answers = []
for start in range(0, len(paths), args.batch_size):
    batch = paths[start : start + args.batch_size]
    conversations = []
    for path in batch:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        # The image stands before its question, which decides what is kept of it.
        content = [{"type": "image", "image": image}, {"type": "text", "text": args.question}]
        conversations.append([{"role": "user", "content": content}])
    inputs = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(model.device, model.dtype)
    output = model.generate(
        **inputs,
        max_new_tokens=args.max_new_tokens,
        do_sample=False,
        return_dict_in_generate=True,
    )
    new_ids = output.sequences[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(new_ids, skip_special_tokens=True)
    for path, text, sample in zip(batch, texts, output.compression_report.samples, strict=True):
        answers.append(
            {
                "image": path.name,
                "answer": text.strip(),
                "visual_tokens": sample.visual_tokens_before,
                "kept": sample.visual_tokens_after,
            }
        )
        print(json.dumps(answers[-1], ensure_ascii=False))
