"""Fine-tune a compressed model with LoRA, to answer in a form of your own.

    python examples/finetune_lora.py
    python examples/finetune_lora.py --model Qwen/Qwen2.5-VL-3B-Instruct --save adapter

The loss is that of the shorter prompt, and the answer does not influence which tokens are kept. The
embedded model says "blue"; here it learns to say "blue!". Put your own images, questions and
answers into `training`. Needs PEFT: pip install peft
"""

import argparse

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

import hf_token_compress  # noqa: F401  (from_pretrained now takes token_compression=)
from hf_token_compress.data.scenes import make_scene, scene_questions
from hf_token_compress.tiny import own_mapper, resolve_model

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default="tiny-qwen2-vl", help="a Hub id, a folder or a tiny model")
parser.add_argument("--retention-ratio", type=float, default=0.25)
parser.add_argument("--samples", type=int, default=64, help="how many to learn from")
parser.add_argument("--learning-rate", type=float, default=2e-3)
parser.add_argument("--save", metavar="FOLDER", help="where to save the adapter")
args = parser.parse_args()

# Load with compression, then wrap in LoRA.
device = "cuda" if torch.cuda.is_available() else "cpu"
model = AutoModelForImageTextToText.from_pretrained(
    resolve_model(args.model),
    dtype="auto" if device == "cuda" else "float32",
    token_compression={
        "retention_ratio": args.retention_ratio,
        "mapper": own_mapper(args.model),  # None unless the model comes with a mapper
    },
).to(device)
processor = AutoProcessor.from_pretrained(resolve_model(args.model))
torch.manual_seed(0)
# In the language model alone; tokens are scored with the adapter.
lora = LoraConfig(r=16, lora_alpha=32, target_modules=r".*language_model.*\.(q|v|up|down)_proj")
model = get_peft_model(model, lora)
model.print_trainable_parameters()


# The data: an image, a question and the answer to learn.
def samples(numbers, split):
    """Images with a question and its answer, for the embedded model."""
    for number in numbers:
        scene = make_scene(number, rows=4, columns=4, split=split)
        (question,) = scene_questions(scene, kinds=["colour"], seed=number)
        yield scene.image, question.text, f"{question.answer}!"


training = list(samples(range(args.samples), "train"))
held_out = list(samples(range(12), "test"))


def encode(image, question, answer=None):
    """Model inputs; with an answer, its tokens are the labels."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": content}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True, **options)
    if answer is None:
        return prompt.to(device, model.dtype)
    chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    whole = processor.apply_chat_template(chat, **options)
    whole["labels"] = whole["input_ids"].clone()
    whole["labels"][:, : prompt["input_ids"].shape[1]] = -100  # learn the answer only
    return whole.to(device, model.dtype)


def accuracy():
    """Share of right answers to questions about images that are not learned from."""
    model.eval()
    right = 0
    for image, question, answer in held_out:
        inputs = encode(image, question)
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        said = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += said.strip() == answer
    return right / len(held_out)


before = accuracy()
model.train()
optimizer = torch.optim.AdamW(
    (weight for weight in model.parameters() if weight.requires_grad), lr=args.learning_rate
)
losses = []
for step, (image, question, answer) in enumerate(training, start=1):
    loss = model(**encode(image, question, answer)).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    if step % 16 == 0:
        print(f"sample {step}: loss {sum(losses[-16:]) / 16:.3f}")
after = accuracy()
print(f"right answers on held-out images: {before:.0%} before, {after:.0%} after")

if args.save:
    model.save_pretrained(args.save)
    print(f"The adapter is in {args.save}: load the model as above, then PeftModel.from_pretrained")
