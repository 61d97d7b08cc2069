"""Which visual tokens stay: pure tensor functions from scores to keep masks."""

from .budgets import may_drop_tokens, top_p_budget, visual_token_budget
from .candidates import Candidates
from .keep_mask import select_tokens, select_visual_tokens

__all__ = [
    "Candidates",
    "may_drop_tokens",
    "select_tokens",
    "select_visual_tokens",
    "top_p_budget",
    "visual_token_budget",
]
