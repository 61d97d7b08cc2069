"""The places for an image, a drawing and a video, and the examples above them."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr
from PIL import Image

from .examples import Example

CANVAS = (448, 448)
"""Width and height of a drawing, in pixels."""

_COLOURS = ["#1d4ed8", "#000000", "#d55e00", "#e69f00", "#15803d", "#7e22ce"]


def image_input() -> gr.Image:
    """A place for an image from a file, the clipboard or a camera; gives its path."""
    shown = gr.Image(
        type="filepath",
        format="png",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        label="Image",
        height=260,
        elem_id="image",
        buttons=[],
    )
    # Gradio would open the file; the library reads it, and says in a sentence why it cannot.
    setattr(shown, "preprocess", lambda payload: payload and payload.path)  # noqa: B010
    return shown


def drawing_input() -> gr.ImageEditor:
    """A white canvas; `comparing.drawn` reads what it gives."""
    return gr.ImageEditor(
        Image.new("RGB", CANVAS, "white"),
        type="pil",
        format="png",
        image_mode="RGB",
        sources=[],
        transforms=[],
        layers=False,
        brush=gr.Brush(default_size=12, colors=_COLOURS, color_mode="fixed"),
        eraser=gr.Eraser(default_size=24),
        canvas_size=CANVAS,
        fixed_canvas=True,
        show_label=False,
        elem_id="drawing",
        buttons=[],
    )


def video_input() -> gr.Gallery:
    """A place for a video file, or the images that are its frames."""
    return gr.Gallery(
        type="filepath",
        label="A video, or its frames",
        columns=3,
        height=260,
        elem_id="video",
        interactive=True,
        buttons=[],
    )


def example_gallery(examples: Sequence[Example], name: str) -> gr.Gallery:
    """Examples in a row, to be clicked."""
    gr.Markdown("Examples: click one to ask its question.")
    return gr.Gallery(
        [(str(example.files[0]), example.question) for example in examples],
        show_label=False,
        elem_id=name,
        elem_classes="examples",
        interactive=False,
        allow_preview=False,
        height="auto",
        container=False,
        buttons=[],
    )
