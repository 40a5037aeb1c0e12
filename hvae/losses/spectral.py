"""Spectral regularisation: the largest singular values of weights, by power iteration."""

from collections.abc import Mapping

import torch
from torch import Tensor

_FIRST_ITERATIONS = 40
_ITERATIONS = 4


class SpectralPenalty:
    """The sum of the largest singular values of convolution weights, read as matrices.

    sigma(W) = u^T W v with W (out, in x kernel), in float32. u and v come from a power iteration
    that goes on from the last u, 4 rounds a call after 40 at the start (NVAE, arXiv 2007.03898,
    section 3.2), and carry no gradient: the one of sigma is u v^T. A weight of zeros, as the tail
    of a prior is at first, has sigma 0 and leaves its u as it is.

    Args:
        weights: by name; at least one, of two or more dimensions.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        if not weights:
            raise ValueError("wanted at least one weight")
        self.weights = dict(weights)
        generator = torch.Generator().manual_seed(0)
        self.vectors = {
            name: _normalised(torch.randn(len(weight), generator=generator)).to(weight.device)
            for name, weight in self.weights.items()
        }
        with torch.no_grad():
            for name in self.weights:
                self._iterate(name, _FIRST_ITERATIONS)

    def __call__(self) -> Tensor:
        """Returns the sum, a scalar, float32; moves the vectors on."""
        sigmas = []
        for name, weight in self.weights.items():
            with torch.no_grad():
                v = self._iterate(name, _ITERATIONS)
            sigmas.append(self.vectors[name].dot(_matrix(weight).mv(v)))
        return torch.stack(sigmas).sum()

    def tensors(self) -> dict[str, Tensor]:
        """Returns the vectors that the next call goes on from, by the name of their weight."""
        return self.vectors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `tensors` returned."""
        for name, vector in self.vectors.items():
            vector.copy_(tensors[name])

    def _iterate(self, name: str, rounds: int) -> Tensor:
        """Moves u on and returns v, the normalised W^T u of the last round."""
        matrix, u = _matrix(self.weights[name]), self.vectors[name]
        v: Tensor = _normalised(matrix.T.mv(u))
        for _ in range(rounds):
            moved = matrix.mv(v)
            u.copy_(torch.where(moved.any(), _normalised(moved), u))
            v = _normalised(matrix.T.mv(u))
        return v


def _matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1).float()


def _normalised(vector: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vector)
    return vector / norm.clamp(min=torch.finfo(vector.dtype).tiny)
