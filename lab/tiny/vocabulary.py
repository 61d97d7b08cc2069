"""What a cell can show, as class numbers and as word embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import CELL_SIZE, Scene

from .architecture import token_id
from .processor import cell_words

ATTRIBUTES = ("name", "colour", "letter", "row", "column")
"""What each visual token describes about its cell."""


class CellVocabulary:
    """Class numbers and token ids of everything that a cell can show.

    Args:
        tokenizer: Tokenizer of the model.

    Attributes:
        token_ids: For each attribute, ids of its words without a space, int64 [classes].
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        words = cell_words()
        self._index = {key: {w: i for i, w in enumerate(words[key])} for key in ATTRIBUTES}
        self.token_ids = {
            key: torch.tensor([token_id(tokenizer, word) for word in words[key]])
            for key in ATTRIBUTES
        }

    def classes(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Class numbers of each visual token's cell.

        Args:
            scenes: B scenes of one shape of R x C cells.

        Returns:
            int64 [B, 2R * 2C, 5], tokens row by row, attributes in the order of `ATTRIBUTES`.
        """
        rows, columns = scenes[0].rows, scenes[0].columns
        index = self._index
        cells = torch.tensor(
            [
                [
                    (
                        index["name"][cell.name],
                        index["colour"][cell.colour],
                        index["letter"][cell.letter],
                        cell.row - 1,
                        cell.column - 1,
                    )
                    for cell in scene.cells
                ]
                for scene in scenes
            ]
        ).view(len(scenes), rows, columns, len(ATTRIBUTES))
        return cells.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)

    @staticmethod
    def badge_tokens(scenes: Sequence[Scene]) -> torch.Tensor:
        """Index of the visual token that shows each cell's badge, int64 [B, cells]."""
        half = CELL_SIZE // 2
        width = 2 * scenes[0].columns
        return torch.tensor(
            [[c.badge[1] // half * width + c.badge[0] // half for c in s.cells] for s in scenes]
        )

    def vectors(self, words: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings [classes, D] of every class, per attribute.

        Args:
            words: Word embeddings [vocabulary, D] of the language model.
        """
        return [words[self.token_ids[key]] for key in ATTRIBUTES]

    def ideal_tokens(self, classes: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Sum [..., D] of the word embeddings of everything that a token's cell shows."""
        vectors = self.vectors(words)
        return torch.stack([v[classes[..., i]] for i, v in enumerate(vectors)]).sum(0)
