"""The shared checker of ops: used by the tests, and by benchmarks before they print a ratio."""

from hvae.testing.case import (
    LAYOUTS,
    OpCase,
    gaussian_latent_case,
    gaussian_sample_case,
    logistic_mixture_nll_case,
    logistic_mixture_sample_case,
    mixture_params,
)
from hvae.testing.checker import (
    TOLERANCES,
    Tolerance,
    check_against_reference,
    check_compiled,
    check_derivatives,
    check_op,
    check_registration,
    check_repeatable,
)
from hvae.testing.memory import poisoned_memory

__all__ = [
    "LAYOUTS",
    "TOLERANCES",
    "OpCase",
    "Tolerance",
    "check_against_reference",
    "check_compiled",
    "check_derivatives",
    "check_op",
    "check_registration",
    "check_repeatable",
    "gaussian_latent_case",
    "gaussian_sample_case",
    "logistic_mixture_nll_case",
    "logistic_mixture_sample_case",
    "mixture_params",
    "poisoned_memory",
]
