"""One list of likelihoods, for the properties that all of them have."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from hvae.distributions import Likelihood, LikelihoodConfig, make_likelihood

MIXTURES = 3


@dataclass(frozen=True)
class Case:
    """A likelihood at one bit depth.

    `masses` tells those that have probabilities of levels from the density.
    """

    kind: str
    bits: int = 8
    channels: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def masses(self) -> bool:
        return self.kind != "gaussian"

    @property
    def has_scale(self) -> bool:
        return self.kind not in ("bernoulli", "categorical")

    @property
    def levels(self) -> int:
        return 2**self.bits

    @property
    def values(self) -> Tensor:
        """The uint8 value that each level is drawn as, (L,)."""
        levels = torch.arange(self.levels)
        return (levels * 255 / (self.levels - 1)).round().to(torch.uint8)

    @property
    def config(self) -> LikelihoodConfig:
        settings: dict[str, Any] = {"kind": self.kind, **self.options}
        if self.kind != "bernoulli":
            settings["bits"] = self.bits
        if self.kind == "logistic_mixture":
            settings["mixtures"] = MIXTURES
        return LikelihoodConfig(**settings)

    @property
    def likelihood(self) -> Likelihood:
        return make_likelihood(self.config, self.channels)

    def params(
        self,
        batch: int,
        *space: int,
        log_scale: float = -2.0,
        spread: float = 0.7,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Head outputs (N, P, *S): locations across the levels, scales about exp(`log_scale`)."""
        params = spread * torch.randn(
            batch, self.likelihood.num_parameters, *space, dtype=torch.float64
        )
        if self.has_scale:
            scales = self.raw_log_scales(params)
            scales.copy_(log_scale + 0.3 * scales)
        return params.to(dtype)

    def raw_log_scales(self, params: Tensor) -> Tensor:
        """A view of the raw log-scales."""
        c, m = self.channels, MIXTURES
        if self.kind != "logistic_mixture":
            return params[:, c:]
        if c == 1 or (c == 3 and self.options.get("coupled", True)):
            slots = 3 if c == 3 else 2
            return params[:, m:].unflatten(1, (c, slots, m))[:, :, 1]
        return params[:, m * (1 + c) : m * (1 + 2 * c)]

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        return "-".join([self.kind, f"{self.bits}bits", f"{self.channels}ch", *options])


def _with_options(**case: Any) -> list[Case]:
    """The case; a mixture also without coupling, where that makes a difference."""
    cases = [Case(**case)]
    if case["kind"] == "logistic_mixture" and case.get("channels", 1) > 1:
        cases.append(Case(**case, options={"coupled": False}))
    return cases


LEVELLED = ["categorical", "discretized_gaussian", "discretized_logistic", "logistic_mixture"]
KINDS = ["bernoulli", "gaussian", *LEVELLED]

# Every kind at every bit depth that it supports.
DEPTHS = [
    Case("bernoulli", bits=1),
    *(Case(kind, bits=bits) for kind in ["gaussian", *LEVELLED] for bits in range(1, 9)),
]
# Every kind for several channels, at depths where all joint levels can be listed.
JOINT = [
    case
    for kind in ["bernoulli", *LEVELLED]
    for channels, bits in [(2, 3), (3, 2), (4, 1), (4, 2)]
    if kind != "bernoulli" or (channels, bits) != (4, 2)
    for case in _with_options(kind=kind, channels=channels, bits=1 if kind == "bernoulli" else bits)
]
# Every kind for every number of channels.
CHANNELS = [
    case
    for kind in KINDS
    for channels in (1, 2, 3, 4)
    for case in _with_options(kind=kind, channels=channels, bits=1 if kind == "bernoulli" else 8)
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives tests every case of the list that they name by their argument."""
    lists = {
        "at_depth": DEPTHS,
        "masses_at_depth": [case for case in DEPTHS if case.masses],
        "tailed_at_depth": [case for case in DEPTHS if case.masses and case.has_scale],
        "density_at_depth": [case for case in DEPTHS if not case.masses],
        # The mean of a mixture is that before values are rounded to levels.
        "averaged_at_depth": [
            case for case in DEPTHS if case.kind != "logistic_mixture" or case.bits >= 5
        ],
        "joint": JOINT,
        "of_channels": CHANNELS,
        "scaled": [case for case in CHANNELS if case.has_scale],
        "of_colour": [case for case in CHANNELS if case.channels == 3],
        # Without 256 logits for each value.
        "few_parameters": [case for case in CHANNELS if case.kind != "categorical"],
    }
    for name, cases in lists.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases, ids=str)
