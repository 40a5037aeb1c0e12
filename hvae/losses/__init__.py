"""What training minimises."""

from hvae.losses.elbo import objective
from hvae.losses.schedule import linear_ramp

__all__ = ["linear_ramp", "objective"]
