"""What benchmarks report, and that they refuse to report without kernels or on a failed check."""

import json

import pytest
import torch

from hvae import ops
from hvae._native import NativeStatus
from hvae.bench import gaussian_latent, logistic_mixture, report, training_step
from hvae.bench.measure import Quantiles, extra_peak_bytes, interleaved_ms
from hvae.errors import UserError


def comparison() -> report.Comparison:
    quantiles = {"eager": 4.0, "compile": 2.0, "fused": 1.0}
    spread = {name: Quantiles(value / 2, value, 2 * value) for name, value in quantiles.items()}
    peaks = {"eager": 3 * report.MIB, "compile": 2 * report.MIB, "fused": report.MIB}
    return report.Comparison("2x3 float32", spread, spread, peaks, 10**6, 4e9)


def test_quantiles_are_those_of_the_values():
    assert Quantiles.of([5.0, 1.0, 3.0, 2.0, 4.0, 6.0]) == Quantiles(2.0, 3.5, 5.0)


def test_peak_counts_what_is_held_at_once():
    def call():
        kept = torch.ones(1000)  # 4000 bytes
        for _ in range(3):
            kept = kept + torch.ones(1000)  # and 8000 more while they are added
        return kept

    assert extra_peak_bytes(call) == 12_000


def test_every_round_times_every_variant():
    called = []
    variants = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    times = interleaved_ms(variants, rounds=4, sample_ms=0.0)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert called[-8:] == ["a", "b"] * 4


def test_the_table_gives_medians_and_spread():
    line = report.markdown([comparison()]).splitlines()[-1]
    assert line == (
        "| 2x3 float32 | 4.00 | 2.00 | 1.00 | 4.00 [2.00, 8.00] | 2.00 [1.00, 4.00] "
        "| 3.0 / 2.0 / 1.0 | 1.0 (25%) |"
    )


def test_results_are_saved_with_their_machine(tmp_path):
    table = report.markdown([comparison()])
    json_path, table_path = report.save("op", [comparison()], table, tmp_path)
    record = json.loads(json_path.read_text())
    assert record["machine"]["torch"] == torch.__version__
    assert record["comparisons"][0]["ratio"]["eager"] == {"p20": 2.0, "p50": 4.0, "p80": 8.0}
    assert table in table_path.read_text()


def test_nothing_is_measured_without_kernels(monkeypatch):
    missing = NativeStatus(loaded=False, path=None, reason="not built", mode="auto")
    monkeypatch.setattr("hvae._native.status", lambda: missing)
    with pytest.raises(UserError, match="no fused op to measure: not built"):
        next(gaussian_latent.run())


def test_nothing_is_measured_on_a_failed_check(monkeypatch, tmp_path):
    loaded = NativeStatus(loaded=True, path=tmp_path, reason="", mode="auto")
    monkeypatch.setattr("hvae._native.status", lambda: loaded)

    def fail(*args, **kwargs):
        raise AssertionError("z differs")

    monkeypatch.setattr(gaussian_latent, "check_against_reference", fail)
    monkeypatch.setattr(gaussian_latent, "compare", pytest.fail)
    with pytest.raises(AssertionError, match="z differs"):
        next(gaussian_latent.run())


@pytest.mark.parametrize("std", gaussian_latent.STDS)
@pytest.mark.parametrize("which", gaussian_latent.PASSES)
def test_eager_and_fused_run_the_same_pass(std, which):
    q, p = (t.detach()[:2, :, :4, :4].contiguous().requires_grad_() for t in
            gaussian_latent.parameters(8, torch.float32))  # fmt: skip
    draws = gaussian_latent.draws(std)
    results = [gaussian_latent.call_of(draws[name], q, p, which)() for name in ("eager", "fused")]
    for eager, fused in zip(*results, strict=True):
        assert eager.shape == fused.shape
    if which == "forward":
        torch.testing.assert_close(results[0][1], results[1][1])


def test_saved_bytes_are_those_of_the_graph(monkeypatch):
    """A product keeps both factors; what several nodes share counts once, parameters not at all."""
    model = torch.nn.Linear(1, 1)
    x = torch.ones(1000, requires_grad=True)

    def loss(*_):
        y = x.exp()  # keeps its result
        return (y * y).sum() + model.weight.pow(2).sum()

    monkeypatch.setattr(training_step, "loss_of", loss)
    assert training_step.saved_bytes(model, reference=False) == 4000


def test_a_step_changes_the_weights():
    model = training_step.make_model("vdvae")
    before = model.decoder.out_conv.weight.clone()
    training_step.step_of(model, "vdvae")()
    assert not torch.equal(model.decoder.out_conv.weight, before)


@pytest.mark.parametrize("dtype", logistic_mixture.DTYPES, ids=str)
def test_the_mixtures_baseline_is_the_op(monkeypatch, dtype):
    compiled = {"eager": logistic_mixture.plain_nll, "fused": ops.logistic_mixture_nll}
    monkeypatch.setattr(logistic_mixture, "variants", lambda: compiled)
    logistic_mixture.check(*logistic_mixture.inputs(2, 8, dtype))


def test_a_wrong_baseline_of_the_mixture_is_found(monkeypatch):
    wrong = {"eager": lambda params, x: 1.001 * logistic_mixture.plain_nll(params, x)}
    monkeypatch.setattr(logistic_mixture, "variants", lambda: wrong)
    with pytest.raises(AssertionError, match="eager is off by 1"):
        logistic_mixture.check(*logistic_mixture.inputs(2, 8, torch.float32))
