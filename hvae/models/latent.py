"""How the raw outputs of a group's two heads become its Gaussians.

The fused op reads buffers of means and raw standard deviations in one of two forms (see
`hvae.ops.gaussian`). The options here are arithmetic on the buffers before the op:

    plain      as they are
    bounded    s -> b - softplus(2 (b - s)) / 2, where sigma(b) = std_max: s itself well below b,
               and never above b
    residual   mean_q = mean_p + q_mean, ln std_q = ln std_p + ln sigma(q_s), in the log form (NVAE,
               arXiv 2007.03898, section 3.2)
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.models.config import ModelConfig
from hvae.ops.gaussian import StdForm, std_code, std_of

_SHARPNESS = 2.0  # of the bound; at 1 a bound of 10 would take a tenth off a std of 1


@dataclass(frozen=True)
class LatentForm:
    """The rule of a model.

    name        meaning
    z_channels  Z
    raw_std     form of the heads' outputs
    raw_floor   floor of that form
    std_max     bound on every standard deviation, or None
    residual    whether the posterior's outputs are relative to the prior
    """

    z_channels: int
    raw_std: StdForm
    raw_floor: float
    std_max: float | None
    residual: bool

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """Returns the rule that a configuration asks for."""
        residual = config.posterior == "residual"
        return cls(config.z_channels, config.std, config.std_floor, config.std_max, residual)

    @property
    def std(self) -> StdForm:
        """Form of the buffers that `prior` and `posterior` return."""
        return "log" if self.residual else self.raw_std

    @property
    def floor(self) -> float:
        """Floor of that form."""
        return 0.0 if self.residual else self.raw_floor

    def prior(self, p: Tensor) -> Tensor:
        """Returns the prior (N, 2Z + W, *S) that the op reads; the W further channels as they are.

        The buffer itself if no option is on.
        """
        if self.std_max is None and not self.residual:
            return p
        mean, raw, rest = self._parts(p)
        raw = self._bounded(raw)
        return torch.cat([mean, self._log(raw) if self.residual else raw, rest], 1)

    def posterior(self, q: Tensor, prior: Tensor) -> Tensor:
        """Returns the posterior (N, 2Z, *S) that the op reads, given what `prior` returned."""
        if self.std_max is None and not self.residual:
            return q
        mean, raw, _ = self._parts(q)
        if not self.residual:
            return torch.cat([mean, self._bounded(raw)], 1)
        mean_p, log_std_p, _ = self._parts(prior)
        log_std = log_std_p + self._log(raw)
        if self.std_max is not None:
            log_std = _below(log_std, math.log(self.std_max))
        return torch.cat([mean_p + mean, log_std], 1)

    def guided(self, prior: Tensor, null: Tensor, *, mean: float, std: float) -> Tensor:
        """Returns a prior (N, 2Z, *S) in the log form, moved from `null` through `prior`.

        mean_g = mean_0 + w (mean_c - mean_0), and likewise ln std, each with a weight of its own
        (Luhman and Luhman, arXiv 2210.10205). Weights 0 and 1 give the ends exactly.
        """
        mean_c, raw_c, _ = self._parts(prior)
        mean_0, raw_0, _ = self._parts(null)
        log_c, log_0 = (raw if self.residual else self._log(raw) for raw in (raw_c, raw_0))
        return torch.cat([torch.lerp(mean_0, mean_c, mean), torch.lerp(log_0, log_c, std)], 1)

    def _parts(self, buffer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.z_channels
        return buffer[:, :z], buffer[:, z : 2 * z], buffer[:, 2 * z :]

    def _log(self, raw: Tensor) -> Tensor:
        """The natural logarithm of the standard deviation of a raw output."""
        if self.raw_std == "log":
            return raw
        return std_of(raw, std_code(self.raw_std), self.raw_floor).log()

    def _bounded(self, raw: Tensor) -> Tensor:
        return raw if self.std_max is None else _below(raw, self._raw_of(self.std_max))

    def _raw_of(self, std: float) -> float:
        """The raw output whose standard deviation is `std`."""
        if self.raw_std == "log":
            return math.log(std)
        excess = std - self.raw_floor
        return excess if excess > 50 else math.log2(math.expm1(excess * math.log(2)))


def _below(raw: Tensor, bound: float) -> Tensor:
    return bound - F.softplus(bound - raw, beta=_SHARPNESS)
