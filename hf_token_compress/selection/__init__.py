"""Which visual tokens stay: pure tensor functions from scores to keep masks."""

from .budgets import may_drop_tokens, top_p_budget, visual_token_budget
from .candidates import Candidates
from .keep_mask import keep_of_visuals, kept_count, select_tokens, select_visual_tokens
from .kept_tokens import KeptTokens

__all__ = [
    "Candidates",
    "KeptTokens",
    "keep_of_visuals",
    "kept_count",
    "may_drop_tokens",
    "select_tokens",
    "select_visual_tokens",
    "top_p_budget",
    "visual_token_budget",
]
