"""Run VLMEvalKit on a compressed model.

VLMEvalKit has no plug-ins, so this adds a class to its `vlmeval.vlm` and starts its own `run.py`,
which gets all further arguments. The JSON file names the class and its arguments, which are those
of the model `hf_token_compress` of lmms-eval without batches, and `max_new_tokens`:

    {"model": {"quarter": {"class": "CompressedModel", "pretrained": "Qwen/Qwen2-VL-7B-Instruct",
                           "retention_ratio": 0.25}},
     "data": {"MMStar": {"class": "ImageMCQDataset", "dataset": "MMStar"}}}
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import torch
import vlmeval.vlm
from vlmeval.vlm.base import BaseModel

from hf_token_compress.data.chat import encode
from hf_token_compress.data.media import read_image, read_video
from hf_token_compress.integrations.lmms_eval.arguments import read_arguments
from hf_token_compress.integrations.lmms_eval.loading import find_device, load

from .arguments import make_parser


class CompressedModel(BaseModel):
    """Answers one question of VLMEvalKit at a time, greedily."""

    INTERLEAVE = True
    VIDEO_LLM = True

    def __init__(self, max_new_tokens: int = 128, **model_args: Any) -> None:
        super().__init__()
        arguments, changes = read_arguments(model_args)
        found = torch.accelerator.current_accelerator(check_available=True) or "cpu"
        self.model, self.processor = load(
            arguments, changes, find_device(arguments.device or str(found))
        )
        self.max_new_tokens, self.max_num_frames = max_new_tokens, arguments.max_num_frames

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to text, images and videos in the order of the message."""
        inputs = encode(
            self.processor, [[{"role": "user", "content": [*map(self._part, message)]}]]
        )
        output = self.model.generate(  # [1, S]
            **inputs.to(self.model.device), max_new_tokens=self.max_new_tokens, do_sample=False
        )
        new_tokens = output[0, inputs["input_ids"].shape[1] :]
        return self.processor.decode(new_tokens, skip_special_tokens=True).strip()

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        kind, value = part["type"], part["value"]
        if kind == "image":
            return {"type": kind, "image": read_image(value)}
        if kind == "video":
            return {"type": kind, "video": read_video(value, self.processor, self.max_num_frames)}
        return {"type": kind, "text": value}


def main() -> None:
    """Command line of this module."""
    parser = make_parser("lab.vlmevalkit", __doc__)
    parser.add_argument("config", help="JSON file with the models and the data")
    own, others = parser.parse_known_args()
    vlmeval.vlm.CompressedModel = CompressedModel
    sys.argv = ["run.py", "--config", own.config, *others]
    runpy.run_module("vlmeval.run", run_name="__main__")


if __name__ == "__main__":
    main()
