"""The page: the question on the left, the answers on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import gradio as gr

from ..config import Modality, Selection
from ..hub import first_line
from ..scorers.registry import available_scorers
from .cards import STYLE as STYLE
from .cards import answer_cards, problem
from .comparing import EXPECTED_ERRORS, Comparer
from .examples import Example
from .knowledge import is_embedded, what_is_measured, what_it_knows

THEME = gr.themes.Soft(
    # Fonts of the system: Gradio's own come from the web.
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
_TITLE = "Fewer visual tokens, the same answer?"
_HEADING = f"""# {_TITLE}
Before the language model runs, **hf_token_compress** drops the visual tokens that do not matter \
for the question. Choose an example or bring your own image, and move the slider.
"""


def make_page(comparer: Comparer, examples: Mapping[Modality, Sequence[Example]]) -> gr.Blocks:
    """The page as Gradio blocks, to be launched.

    Args:
        comparer: Asks the model. There is a tab for each modality that it has a setting for.
        examples: For each modality.
    """

    def ask(
        modality: Modality,
        image: str | None,
        video: list[tuple[str, str | None]] | None,
        question: str,
        percent: float,
        scorer: str,
        selection: Selection,
        explained: bool,
    ) -> tuple[Any, ...]:
        files = [image] if image else []
        if modality == "video":
            files = [file for file, _ in video or ()]
        changes = {"retention_ratio": percent / 100, "scorer": scorer, "selection": selection}
        try:
            found = comparer(
                question, files, modality=modality, changes=changes, explained=explained
            )
        except EXPECTED_ERRORS as error:
            return problem(first_line(error)), None, None
        return answer_cards(found), found.kept, found.relevance

    base = comparer.settings["image"]
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.Markdown(_HEADING)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                modality = gr.State("image")
                with gr.Tabs():
                    with gr.Tab("Image") as image_tab:
                        image_gallery = _gallery(examples["image"], "image-examples")
                        image = _image_input()
                    with gr.Tab("Video", visible="video" in comparer.settings) as video_tab:
                        video_gallery = _gallery(examples.get("video", ()), "video-examples")
                        video = _video_input()
                question = gr.Textbox(label="Question", elem_id="question", lines=1, max_lines=4)
                percent = gr.Slider(
                    1,
                    100,
                    max(1, round(100 * base.retention_ratio)),
                    step=1,
                    label="Visual tokens to keep, in %",
                    elem_id="percent",
                )
                with gr.Row():
                    scorer = gr.Dropdown(
                        _scorers(comparer), value=base.scorer_name, label="Scorer", min_width=140
                    )
                    selection = gr.Dropdown(
                        list(get_args(Selection)),
                        value=base.selection_name,
                        label="Selection",
                        min_width=140,
                    )
                explained = gr.Checkbox(
                    is_embedded(comparer.checkpoint.name), label="Show what the answer depends on"
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
            with gr.Column(scale=3, min_width=320):
                cards = gr.HTML(elem_id="answers", min_height=120)
                with gr.Row():
                    kept = _drawing("Kept tokens are lit", "kept")
                    heat = _drawing("What the answer depends on", "relevance")
                gr.Markdown(what_is_measured(comparer.checkpoint), elem_classes="note")
        gr.Markdown(what_it_knows(comparer.checkpoint, clips="video" in comparer.settings))

        inputs = [modality, image, video, question, percent, scorer, selection, explained]
        # One call at a time: others at once would make its times longer.
        asking: dict[str, Any] = {
            "fn": ask,
            "inputs": inputs,
            "outputs": [cards, kept, heat],
            "concurrency_limit": 1,
            "concurrency_id": "model",
            "show_progress": "minimal",
            "api_visibility": "private",
        }
        # On a phone, the answers are below the question.
        gr.on([button.click, question.submit], scroll_to_output=True, **asking)
        changed = [percent.release, scorer.input, selection.input, explained.input]
        gr.on(changed, trigger_mode="always_last", **asking)
        chosen: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        image_tab.select(lambda: "image", None, modality, **chosen)
        video_tab.select(lambda: "video", None, modality, **chosen)
        shown: dict[Modality, tuple[Any, Any]] = {
            "image": (image_gallery, image),
            "video": (video_gallery, video),
        }
        for kind, (gallery, place) in shown.items():
            take = _taker(kind, examples.get(kind, ()))
            gallery.select(take, None, [modality, place, question], **chosen).then(
                scroll_to_output=True, **asking
            )
    return page


def _image_input() -> gr.Image:
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


def _video_input() -> gr.Gallery:
    return gr.Gallery(
        type="filepath",
        label="A video, or its frames",
        columns=3,
        height=260,
        elem_id="video",
        interactive=True,
        buttons=[],
    )


def _gallery(examples: Sequence[Example], name: str) -> gr.Gallery:
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


def _drawing(title: str, name: str) -> gr.Image:
    with gr.Column(min_width=240):
        gr.Markdown(f"**{title}**")
        return gr.Image(
            show_label=False,
            alt_text=title,
            elem_id=name,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
        )


def _taker(modality: Modality, examples: Sequence[Example]) -> Callable[..., tuple[Any, ...]]:
    """The handler that fills in the example that was clicked."""

    def take(event: gr.SelectData) -> tuple[Any, ...]:
        example = examples[event.index]
        files = [str(file) for file in example.files]
        return modality, files[0] if modality == "image" else files, example.question

    return take


def _scorers(comparer: Comparer) -> list[str]:
    with_mapper = any(setting.mapper is not None for setting in comparer.settings.values())
    return [name for name in available_scorers() if name != "mapper" or with_mapper]
