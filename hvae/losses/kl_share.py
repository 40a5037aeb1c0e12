"""Weights that move the KL between groups: a group pays by how much of the total it takes."""

import math

import torch
from torch import Tensor

_SUM_OF_SHARES = 0.667
_FINE_TO_COARSE = 1000.0  # ratio of the exponential part
_OFFSET = 10.0


def kl_shares(num_groups: int, device: torch.device | None = None) -> Tensor:
    """Returns the share of the KL that each group may take, float64 (L,), coarse to fine.

    Proportional to exp(linspace(0, ln 1000, L)) + 10, with sum 0.667: rising toward the fine
    groups.
    """
    exponents = torch.linspace(
        0, math.log(_FINE_TO_COARSE), num_groups, dtype=torch.float64, device=device
    )
    shares = exponents.exp() + _OFFSET
    return _SUM_OF_SHARES * shares / shares.sum()


def kl_share_weights(kl: Tensor) -> Tensor:
    """Returns the weight of each group's KL in the objective, (N, L), without gradient.

    With u_l = KL_l / (r_l sum_k KL_k), per image, and r from `kl_shares`:

        w(u) = max(0.1, u)  u < 1;   1  1 <= u < 2;   u - 1  2 <= u < 3;   2  3 <= u

    Groups below their share pay less than their KL, groups above twice their share pay up to
    double. Luhman & Luhman, "Optimizing Hierarchical Image VAEs for Sample Quality" (arXiv
    2210.10205). The weighted objective is no bound on the likelihood.

    Args:
        kl: (N, L) nats, coarse to fine.
    """
    kl = kl.detach()
    total = kl.sum(1, keepdim=True).clamp(min=torch.finfo(kl.dtype).tiny)
    u = kl / total / kl_shares(kl.shape[1], kl.device).to(kl.dtype)
    return u.clamp(0.1, 1.0) + (u - 2).clamp(0.0, 1.0)
