"""Answer questions over HTTP, several requests at once, each with a budget of its own.

    python examples/serve.py
    printf '{"question": "What is this?", "image": "%s"}' "$(base64 -w0 photo.jpg)" |
        curl http://127.0.0.1:8000 -d @-

A request may have "retention_ratio" and "max_new_tokens" too. `answer` is the function that serves
it: put it behind any web server (docs/serving.md has FastAPI). Several threads may call it.
"""

import argparse
import base64
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText, AutoProcessor

import hf_token_compress  # noqa: F401  (from_pretrained now takes token_compression=)
from hf_token_compress.tiny import own_mapper, resolve_model

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default="tiny-qwen2-vl", help="a Hub id, a folder or a tiny model")
parser.add_argument("--retention-ratio", type=float, default=0.5, help="where a request has none")
parser.add_argument("--port", type=int, default=8000)
args = parser.parse_args()

model = AutoModelForImageTextToText.from_pretrained(
    resolve_model(args.model),
    dtype="auto",
    token_compression={
        "retention_ratio": args.retention_ratio,
        "mapper": own_mapper(args.model),  # None unless the model comes with a mapper
    },
).to("cuda" if torch.cuda.is_available() else "cpu")
processor = AutoProcessor.from_pretrained(resolve_model(args.model))


def answer(image, question, retention_ratio=None, max_new_tokens=64):
    """Answer a question about an image, with the request's own share of the visual tokens."""
    if retention_ratio is not None:
        # A number only: other settings could name a mapper to download.
        retention_ratio = float(retention_ratio)
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device, model.dtype)
    output = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        token_compression=retention_ratio,  # None: the model's setting
        return_dict_in_generate=True,
    )
    new_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    (sample,) = output.compression_report.samples  # of this request, whatever else runs
    return {
        "answer": processor.decode(new_ids, skip_special_tokens=True).strip(),
        "visual_tokens": sample.visual_tokens_before,
        "kept": sample.visual_tokens_after,
    }


# What a request that is not as it should be may raise.
_REFUSED = (
    *(AttributeError, KeyError, OSError, TypeError, ValueError),
    Image.DecompressionBombError,
)


class Handler(BaseHTTPRequestHandler):
    """One request: a JSON object with an image in base64, a question and perhaps a ratio."""

    def do_POST(self):
        """Answer it, or say what is wrong with it."""
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            image = Image.open(io.BytesIO(base64.b64decode(request.pop("image"))))
            image = ImageOps.exif_transpose(image).convert("RGB")
            status, found = 200, answer(image, **request)
        except _REFUSED as error:
            status, found = 400, {"error": f"{type(error).__name__}: {error}"}
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)

if __name__ == "__main__":
    print(f"Listening on http://127.0.0.1:{server.server_port}")
    server.serve_forever()
