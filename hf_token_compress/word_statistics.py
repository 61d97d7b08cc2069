"""Mean and covariance of a model's word embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

_IDS_PER_CHUNK = 4096
_ROWS_PER_BLOCK = 512


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """Mean and covariance over the vocabulary, of the words as the decoder gets them.

    Attributes:
        mean: float32 [D].
        covariance: float32 [D, D].
    """

    mean: Tensor
    covariance: Tensor
    _factors: dict[float, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def over(cls, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> WordStatistics:
        """The statistics over a vocabulary.

        Args:
            ids: int64 [V], all ids.
            embed: Embeds ids, int64 [C], as float [C, D].
        """
        count, chunks = len(ids), ids.split(_IDS_PER_CHUNK)
        sums = [embed(chunk).float().sum(dim=0) for chunk in chunks]  # [D] each
        mean = torch.stack(sums).sum(dim=0) / count  # [D]
        covariance = mean.new_zeros(len(mean), len(mean))  # [D, D]
        for chunk in chunks:
            centred = embed(chunk).float() - mean  # [C, D]
            # Rows up to the diagonal: the other half is the same.
            for start in range(0, len(mean), _ROWS_PER_BLOCK):
                end = start + _ROWS_PER_BLOCK
                left, right = centred[:, start:end], centred[:, :end]  # [C, rows], [C, columns]
                covariance[start:end, :end].addmm_(left.T, right, alpha=1 / count)
        return cls(mean, covariance.tril() + covariance.tril(-1).T)

    def precision_times(self, vectors: Tensor, shrinkage: float) -> Tensor:
        """Vectors times the inverse of the regularised covariance, float32 [R, D].

        Args:
            vectors: float32 [R, D].
            shrinkage: Share of the mean variance that is added to every variance, above 0.

        Raises:
            ValueError: The regularised covariance cannot be inverted.
        """
        if shrinkage not in self._factors:
            ridge = shrinkage * self.covariance.diagonal().mean()
            identity = torch.eye(len(self.mean), dtype=torch.float32, device=self.mean.device)
            factor, info = torch.linalg.cholesky_ex(self.covariance + ridge * identity)
            if int(info) != 0:
                raise ValueError(
                    "The covariance of the word embeddings cannot be inverted (they hold NaN, or "
                    "hardly differ): choose a larger shrinkage, or a scorer that does not need "
                    "word_statistics, such as 'attention'."
                )
            self._factors[shrinkage] = factor
        return torch.cholesky_solve(vectors.T, self._factors[shrinkage]).T  # [R, D]
