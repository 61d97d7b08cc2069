"""Files with videos and questions, as users have them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

from hf_token_compress.data.scenes import make_scene, scene_questions


def write_video(path: Path, frames: list[Image.Image]) -> Path:
    """MPEG-4, one frame a second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def question(number: int) -> tuple[str, str]:
    (found,) = scene_questions(make_scene(number, 4, 4, split="mapper"), kinds=["colour"])
    return found.text, found.answer


def write_lines(folder: Path, *samples: Any) -> Path:
    path = folder / "data.jsonl"
    lines = [item if isinstance(item, str) else json.dumps(item) for item in samples]
    path.write_text("\n".join(lines) + "\n")
    return path
