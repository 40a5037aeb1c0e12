"""A ladder small enough to run hundreds of times, with priors and posteriors that matter."""

from collections.abc import Callable

import pytest
import torch

from hvae.models import HVAE, ModelConfig

SMALL = {
    "size": (8, 8),
    "channels": 1,
    "encoder": "8x1,8d2,4x1,4d4,1x1",
    "decoder": "1x1,4m1,4x1,8m4",
    "width": 8,
    "z_channels": 2,
    "likelihood": {"mixtures": 2},
}


@pytest.fixture
def make_model() -> Callable[..., HVAE]:
    """Builds a small model with changed settings.

    Every parameter is moved off its initial value, where priors are N(0, 1) and feature updates
    zero, unless `initial`.
    """

    def make(*, initial: bool = False, **changes: object) -> HVAE:
        model = HVAE(ModelConfig.model_validate({**SMALL, **changes}))
        if not initial:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture
def random_images() -> Callable[..., torch.Tensor]:
    """Draws uniform uint8 data (n, C, *S) that fits a model."""

    def draw(model: HVAE, n: int) -> torch.Tensor:
        return torch.randint(256, (n, *model.shape), dtype=torch.uint8)

    return draw
