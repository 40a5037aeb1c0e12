"""The accumulating metric keeps float64 sums, and names a broken environment."""

import doctest
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hvae.metrics import BitsPerDim, bits_per_dim


def test_examples_are_averaged_not_batches() -> None:
    metric = BitsPerDim(num_dims=1)
    metric.update(torch.full((3,), -math.log(2)))
    metric.update(torch.full((1,), -5 * math.log(2)))
    assert metric.compute().item() == pytest.approx(2.0)


def test_the_sums_survive_every_cast_of_a_parent() -> None:
    parent = nn.ModuleDict({"metric": BitsPerDim(num_dims=1), "layer": nn.Linear(1, 1)})
    metric = parent["metric"]
    metric.update(torch.tensor([-1.0 - 2.0**-20]))
    exact = metric.compute()
    for cast in (parent.bfloat16, parent.half, lambda: parent.to(torch.float32)):
        cast()
        metric._computed = None
        assert metric.nats.dtype == torch.float64
        assert torch.equal(metric.compute(), exact)
    metric.set_dtype(torch.float16)
    assert metric.nats.dtype == torch.float64
    assert parent["layer"].weight.dtype == torch.float32
    metric.reset()
    assert metric.nats.dtype == torch.float64


def test_a_million_small_terms_do_not_drift() -> None:
    metric = BitsPerDim(num_dims=1)
    metric.update(torch.full((1,), -1e8))
    for _ in range(100):
        metric.update(torch.full((10_000,), -0.1))
    assert metric.nats.item() == pytest.approx(-1e8 - 1e5, rel=1e-9)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted log_prob of shape \(N,\), got \(2, 3\)"):
        BitsPerDim(num_dims=1).update(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="num_dims must be at least 1, got 0"):
        BitsPerDim(num_dims=0)


def test_the_docstring_example_holds() -> None:
    assert doctest.testmod(bits_per_dim).failed == 0


def test_torch_fidelity_without_torchvision_is_named_as_the_cause(tmp_path: Path) -> None:
    (tmp_path / "torch_fidelity").mkdir()
    (tmp_path / "torch_fidelity" / "__init__.py").write_text("import torchvision\n")
    info = tmp_path / "torch_fidelity-0.4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-fidelity\nVersion: 0.4.0\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import hvae.metrics\n"
        "hvae.metrics.evaluate_likelihood\n"
        "hvae.metrics.BitsPerDim\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        "ImportError: torchmetrics cannot be imported, because torch-fidelity is installed "
        "without torchvision: run `pip uninstall torch-fidelity`, or install torchvision"
    )
