"""The projector of VILA1.5: merge 2 x 2 features, then a norm and two layers."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import ACT2FN
from typing_extensions import override

from .configuration import TokenOrder, VilaConfig
from .names import PROJECTOR_TYPE


def merge_patches(features: Tensor, token_order: TokenOrder) -> Tensor:
    """Merge 2 x 2 neighbours into one token; an odd grid gets zeros at its bottom and right.

    Args:
        features: float [B, side * side, C], row-major.
        token_order: Order of the merged tokens.

    Returns:
        float [B, merged * merged, 4 * C] with merged = ceil(side / 2). The channels are those of
        the upper left, upper right, lower left and lower right neighbour.
    """
    batch, count, channels = features.shape
    side = int(count**0.5)
    grid = features.view(batch, side, side, channels)
    grid = nn.functional.pad(grid, (0, 0, 0, side % 2, 0, side % 2))
    merged = (side + 1) // 2  # grid is [B, 2 * merged, 2 * merged, C]
    # [B, rows, 2, columns, 2, C]
    cells = grid.view(batch, merged, 2, merged, 2, channels)
    axes = (0, 3, 1, 2, 4, 5) if token_order == "column_major" else (0, 1, 3, 2, 4, 5)
    return cells.permute(axes).reshape(batch, merged * merged, 4 * channels)


class VilaProjector(nn.Module):
    """From the features of the vision tower to visual tokens.

    Raises:
        ValueError: The configuration names another projector type.
    """

    def __init__(self, config: VilaConfig) -> None:
        super().__init__()
        if config.projector_type != PROJECTOR_TYPE:
            raise ValueError(
                f"The projector type {config.projector_type!r} is not supported: VILA1.5 has "
                f"{PROJECTOR_TYPE!r}."
            )
        self.token_order: TokenOrder = config.token_order
        width = 4 * len(config.splits) * config.vision_config.hidden_size
        hidden = config.text_config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, hidden)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden, hidden)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Features of the tower, row-major [B, side * side, C] → visual tokens [B, tokens, D]."""
        merged = merge_patches(features, self.token_order)  # [B, tokens, 4 * C]
        projected: Tensor = self.linear_2(self.act(self.linear_1(self.norm(merged))))
        return projected
