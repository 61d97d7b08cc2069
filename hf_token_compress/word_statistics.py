"""Mean and covariance of a model's word embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


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
