"""Mean and covariance of features, gathered batch by batch in float64."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.checks import (
    check_count,
    check_finite,
    check_matrix,
    feature_matrix,
    to_float64,
)

# Of the mean variance: some thousand times the rounding of a float64 covariance.
_RIDGE = 1e-12


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of the features of a set of images, float64.

    Attributes:
        count: images they are of.
        mean: (d,).
        cov: (d, d), divided by count - 1.
        cholesky: (d, d) lower factor of `cov`, where it is known; see `factored`.

    Raises:
        ValueError: shapes or dtypes are not as above.
        UserError: a value is not finite, or count is below 2.
    """

    count: int
    mean: Tensor
    cov: Tensor
    cholesky: Tensor | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        dim = len(self.mean)
        factor = self.cov if self.cholesky is None else self.cholesky
        for name, value, shape in (
            ("mean", self.mean, (dim,)),
            ("cov", self.cov, (dim, dim)),
            ("cholesky", factor, (dim, dim)),
        ):
            if value.dtype != torch.float64 or value.shape != shape:
                raise ValueError(
                    f"wanted {name} as float64 {shape}, got {value.dtype} {tuple(value.shape)}"
                )
            if not value.isfinite().all():
                raise UserError(f"the {name} of stored features is not finite; make it anew")
        check_count(self.count, "images")

    @property
    def dim(self) -> int:
        """Width of the features."""
        return len(self.mean)

    def to(self, device: torch.device | str) -> Self:
        """Returns the same on a device."""
        factor = None if self.cholesky is None else self.cholesky.to(device)
        return replace(self, mean=self.mean.to(device), cov=self.cov.to(device), cholesky=factor)

    def factored(self) -> Self:
        """Returns the same with its Cholesky factor, which many comparisons can share.

        Without one where there are no more images than features: the covariance is singular, and
        comparisons take another way.
        """
        if self.cholesky is not None or self.count <= self.dim:
            return self
        return replace(self, cholesky=cholesky_factor(self.cov))


class Moments:
    """Count, mean and scatter of a stream of features, updated in place.

    Everything lies in one symmetric float64 matrix, `packed` (d + 1, d + 1),

        [ scatter  mean  ]        scatter = sum_i (x_i - mean)(x_i - mean)^T
        [ mean^T   count ]

    so that ranks can gather it as one tensor. Parts are joined by the pairwise update of Chan,
    Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances"
    (1979): unlike sums of squares it cancels nothing where means are large, and unlike sums about a
    shift it asks no agreement on one between ranks.

    Args:
        packed: (d + 1, d + 1) float64, changed in place; zeros are no features.
    """

    def __init__(self, packed: Tensor) -> None:
        self.packed = packed
        self.scatter = packed[:-1, :-1]
        self.mean = packed[-1, :-1]

    @classmethod
    def empty(cls, dim: int, device: torch.device | str | None = None) -> Self:
        """Returns moments of no features of width `dim`."""
        return cls(torch.zeros(dim + 1, dim + 1, dtype=torch.float64, device=device))

    @property
    def dim(self) -> int:
        """Width of the features."""
        return len(self.mean)

    @property
    def count(self) -> int:
        """Rows so far."""
        return int(self.packed[-1, -1])

    def update(self, features: Tensor) -> None:
        """Adds rows (N, d), any floating dtype and device; N may be 0.

        Raises:
            ValueError: they are no such matrix.
            UserError: one is not finite; its index counts from the first row of all.
        """
        check_matrix(features, self.dim)
        if len(features) == 0:
            return
        check_finite(features, first=self.count)
        x = to_float64(features).to(self.packed.device)
        mean = x.mean(0)
        centred = x - mean
        self.scatter.addmm_(centred.T, centred)
        self._join(len(x), mean)

    def merge(self, other: Self) -> None:
        """Adds what another has seen."""
        if other.count:
            self.scatter.add_(other.scatter)
            self._join(other.count, other.mean)

    def statistics(self, what: str = "images") -> Statistics:
        """Returns mean and covariance of the rows so far.

        Raises:
            UserError: there are less than two; `what` names them.
        """
        check_count(self.count, what)
        return Statistics(self.count, self.mean.clone(), self.scatter / (self.count - 1))

    def _join(self, count: int, mean: Tensor) -> None:
        """Accounts for a part whose scatter about its own mean is added already."""
        before, total = self.count, self.count + count
        apart = mean - self.mean
        self.scatter.addr_(apart, apart, alpha=before * count / total)
        self.mean.add_(apart, alpha=count / total)
        self.packed[:-1, -1] = self.mean
        self.packed[-1, -1] = total


def statistics(features: Tensor) -> Statistics:
    """Returns mean and covariance of features (N, d), float64.

    Args:
        features: any floating dtype, on any device; the result is there too, or on the CPU for MPS.

    Raises:
        ValueError: they are no matrix of floating numbers.
        UserError: there are less than two rows, or one is not finite.
    """
    x = feature_matrix(features, "images")
    moments = Moments.empty(x.shape[1], x.device)
    moments.update(x)
    return moments.statistics()


def merged(parts: Tensor) -> Tensor:
    """Returns the packed moments (d + 1, d + 1) of parts (R, d + 1, d + 1), such as R ranks."""
    whole = Moments(parts[0].clone())
    for part in parts[1:]:
        whole.merge(Moments(part))
    return whole.packed


def cholesky_factor(cov: Tensor) -> Tensor:
    """Returns lower triangular L (d, d) with L L^T = cov, float64.

    Only where `cov` has no such factor, as with features that are always 0, 1e-12 of its mean
    diagonal is added to the diagonal.

    Raises:
        UserError: it is not positive semi-definite.
    """
    if not cov.any():
        return torch.zeros_like(cov)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(cov)
    if failed:
        ridge = (_RIDGE * cov.diagonal().mean()).expand(len(cov)).diag()
        factor, failed = torch.linalg.cholesky_ex(cov + ridge)
    if failed:
        raise UserError(
            "a covariance of features is not positive semi-definite; make the statistics anew"
        )
    return factor
