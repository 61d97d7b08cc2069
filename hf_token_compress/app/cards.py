"""The two answers side by side, as HTML."""

from __future__ import annotations

from html import escape

from ..asking import Answer
from .comparing import Comparison

STYLE = """
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; }
.answers section { border: 1px solid var(--border-color-primary); border-radius: 10px;
  padding: 12px 14px; background: var(--background-fill-secondary); min-width: 0; }
.answers section.kept { border-color: #e69f00; }
.answers h3 { margin: 0; font-size: .85rem; font-weight: 600;
  color: var(--body-text-color-subdued); }
.answers p.answer { margin: 6px 0 10px; font-size: 1.5rem; font-weight: 700; line-height: 1.25;
  color: var(--body-text-color); overflow-wrap: anywhere; }
.answers dl { display: grid; grid-template-columns: 1fr auto; gap: 2px 10px; margin: 0;
  font-size: .9rem; }
.answers dt { color: var(--body-text-color-subdued); }
.answers dd { margin: 0; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; color: var(--body-text-color); }
@media (max-width: 480px) {
  .answers section { padding: 10px; }
  .answers p.answer { font-size: 1.25rem; }
  .answers dl { font-size: .8rem; gap: 2px 6px; }
}
.gradio-container .examples .grid-wrap { min-height: 0; height: auto; }
.gradio-container .examples .grid-container { display: flex; overflow-x: auto; gap: 10px;
  padding: 4px 4px 10px; }
.gradio-container .examples .gallery-item { flex: 0 0 124px; }
.gradio-container .examples button.thumbnail-item { height: 100%; width: 124px;
  aspect-ratio: auto; }
.gradio-container .examples button .caption-label.caption-label.caption-label {
  position: static; max-width: none; border: 0; white-space: normal; font-size: .8rem;
  background: none; text-align: left; opacity: 1; }
.problem { border-left: 4px solid #d55e00; padding: 8px 12px; margin: 0; }
.note { color: var(--body-text-color-subdued); font-size: .85rem; margin: 8px 0 0; }
"""
"""Stylesheet of the cards, the examples and the notes."""

UNASKED = '<p class="note">Both answers appear here: with all visual tokens, and with fewer.</p>'
"""What stands in the place of the answers before a question, as HTML."""


def answer_cards(found: Comparison) -> str:
    """Both answers with their tokens, KV cache and milliseconds, as HTML."""
    sample = found.report
    share = sample.visual_tokens_after / sample.visual_tokens_before
    cards = (
        _card(
            "all",
            "All visual tokens",
            found.full,
            sample.visual_tokens_before,
            sample.prompt_tokens_before,
        ),
        _card(
            "kept",
            f"{share:.0%} of them kept",
            found.compressed,
            sample.visual_tokens_after,
            sample.prompt_tokens_after,
        ),
    )
    return f'<div class="answers">{"".join(cards)}</div>{problem(found.unexplained)}'


def problem(sentence: str) -> str:
    """A sentence that says what went wrong, as HTML; "" for an empty one."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>' if sentence else ""


def _card(name: str, title: str, answer: Answer, visual_tokens: int, prompt_tokens: int) -> str:
    figures = {
        "Visual tokens": str(visual_tokens),
        "Prompt tokens": str(prompt_tokens),
        "KV cache": f"{answer.kv_bytes / 2**10:,.0f} KiB",
        "Time": f"{answer.milliseconds:,.0f} ms",
    }
    rows = "".join(f"<dt>{label}</dt><dd>{figure}</dd>" for label, figure in figures.items())
    return (
        f'<section class="{name}"><h3>{title}</h3>'
        f'<p class="answer">{escape(answer.text) or "(an empty answer)"}</p><dl>{rows}</dl>'
        "</section>"
    )
