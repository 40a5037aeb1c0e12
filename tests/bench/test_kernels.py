"""What is measured of the ops, and that nothing is without kernels or on a failed check."""

import pytest
import torch

from hvae._native import NativeStatus
from hvae.bench import gaussian_latent, kernels, logistic_mixture
from hvae.bench.case import DTYPES, Case, compare
from hvae.bench.cuda import CudaMeter
from hvae.bench.device import choose_device
from hvae.bench.measure import CpuMeter
from hvae.errors import UserError

SMALL = (2, 3, 4, 4)
SHAPES = {"gaussian_latent": [SMALL]}


class OtherMeter(CpuMeter):
    """A meter that leaves the host's part out, to be told apart by its times."""

    def with_host(self):
        return CpuMeter(sample_ms=0.0)


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    status = NativeStatus(loaded=True, path=tmp_path, reason="", mode="auto")
    monkeypatch.setattr("hvae._native.status", lambda: status)


@pytest.fixture
def uncompiled(monkeypatch):
    """Compiling takes seconds, and is torch's affair."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def test_nothing_is_measured_without_kernels(monkeypatch):
    missing = NativeStatus(loaded=False, path=None, reason="not built", mode="auto")
    monkeypatch.setattr("hvae._native.status", lambda: missing)
    with pytest.raises(UserError, match="no fused op to measure: not built"):
        next(kernels.run(CpuMeter(), [torch.float32], SHAPES))


def test_nothing_is_measured_on_a_failed_check(monkeypatch, loaded, uncompiled):
    def fail(*args, **kwargs):
        raise AssertionError("z differs")

    monkeypatch.setattr(gaussian_latent, "check_against_reference", fail)
    monkeypatch.setattr(kernels, "compare", pytest.fail)
    with pytest.raises(AssertionError, match="z differs"):
        next(kernels.run(CpuMeter(), [torch.float32], SHAPES))


@pytest.mark.parametrize("name", kernels.OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_op_is_checked_and_measured_in_every_dtype(loaded, uncompiled, name, dtype):
    meter = CpuMeter(sample_ms=0.0)
    rows = list(kernels.run(meter, [DTYPES[dtype]], {name: [SMALL]}, rounds=2))
    assert rows
    for row in rows:
        assert row.case.startswith(f"{name} 2x3x4x4 {dtype}")
        assert set(row.time_ms) == {"eager", "compile", "fused"}
        assert row.ratio["fused"].p50 == 1
        assert row.moved_bytes > 0
        assert row.call_ms is None


def test_small_maps_are_measured_with_one_std(uncompiled):
    labels = {
        size: [case.label for case in gaussian_latent.cases((1, 1, size, 16), torch.float32, "cpu")]
        for size in (16, 17)
    }
    assert [len(labels[size]) for size in (16, 17)] == [2, 4]
    assert not [label for label in labels[16] if "log" in label]


def test_the_hosts_part_is_measured_where_the_meter_leaves_it_out():
    case = Case("case", {"fused": lambda: sum(range(1000))}, moved_bytes=2)
    row = compare(case, OtherMeter(sample_ms=0.0), rounds=2)
    assert set(row.call_ms) == {"fused"}


@pytest.mark.parametrize("std", gaussian_latent.STDS)
@pytest.mark.parametrize("which", gaussian_latent.PASSES)
def test_eager_and_fused_run_the_same_pass(std, which):
    q, p = gaussian_latent.parameters(SMALL, torch.float32)
    draws = gaussian_latent.draws(std)
    results = [gaussian_latent.call_of(draws[name], q, p, which)() for name in ("eager", "fused")]
    for eager, fused in zip(*results, strict=True):
        assert eager.shape == fused.shape
    if which == "forward":
        torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.parametrize("colours", [1, 3])
def test_a_wrong_likelihood_is_found(colours):
    params, x = logistic_mixture.inputs((2, colours, 8, 8), torch.float32)
    wrong = {"eager": lambda params, x: 1.001 * logistic_mixture.plain_nll(params, x)}
    with pytest.raises(AssertionError, match="eager is off by 1"):
        logistic_mixture.check_nll(params, x, wrong)
    logistic_mixture.check_nll(params, x, {"eager": logistic_mixture.plain_nll})


@pytest.mark.parametrize("colours", [1, 3])
def test_a_wrong_sampler_is_found(monkeypatch, colours):
    params = logistic_mixture.inputs((2, colours, 8, 8), torch.float32)[0].detach()
    logistic_mixture.check_sample(params, colours)
    right = logistic_mixture.plain_sample

    def shifted(params, *args, **kwargs):
        return (right(params, *args, **kwargs) + 1).clamp(max=255)

    monkeypatch.setattr(logistic_mixture, "plain_sample", shifted)
    with pytest.raises(AssertionError, match="eager draws other levels than the reference"):
        logistic_mixture.check_sample(params, colours)


def test_shapes_belong_to_their_op():
    texts = ["32x16x64x64", "logistic_mixture_nll:8x3x5x7", "logistic_mixture_nll:8x1x5x7"]
    assert kernels.parse_shapes(texts) == {
        "gaussian_latent": [(32, 16, 64, 64)],
        "logistic_mixture_nll": [(8, 3, 5, 7), (8, 1, 5, 7)],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("32x16x64", "wanted \\[OP:\\]NxCxHxW such as 32x16x64x64, got 32x16x64"),
        ("0x16x64x64", "wanted \\[OP:\\]NxCxHxW"),
        ("32x-1x64x64", "wanted \\[OP:\\]NxCxHxW"),
        ("", "wanted \\[OP:\\]NxCxHxW"),
        ("softmax:1x1x1x1", "wanted an op of gaussian_latent, .*; got softmax"),
        ("logistic_mixture_nll:8x16x64x64", "wants 1 or 3 colours, got 16"),
    ],
)
def test_a_wrong_shape_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        kernels.parse_shapes([text])


def test_cuda_adds_small_maps():
    assert len(kernels.default_shapes("cpu")["gaussian_latent"]) == 1
    on_cuda = kernels.default_shapes("cuda")["gaussian_latent"]
    assert {(32, 16, size, size) for size in (1, 4, 16)} < set(on_cuda)
    assert set(kernels.default_shapes("cpu")) == set(kernels.OPS)


@pytest.mark.parametrize(
    ("device", "build", "wanted", "chosen"),
    [
        (False, True, None, "cpu"),
        (True, False, None, "cpu"),
        (True, True, None, "cuda"),
        (True, True, "cpu", "cpu"),
        (True, True, "cuda", "cuda"),
    ],
)
def test_cuda_is_chosen_where_there_are_a_device_and_kernels(
    monkeypatch, device, build, wanted, chosen
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device)
    info = {"build": {"cuda_compiled": build, "cuda_reason": "HVAE_CUDA=0"}}
    monkeypatch.setattr("hvae._native.build_info", lambda: info)
    assert choose_device(wanted) == chosen


def test_cuda_is_refused_with_its_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no CUDA device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("hvae._native.build_info", lambda: {"build": None})
    with pytest.raises(UserError, match="no CUDA kernels: nothing is compiled"):
        choose_device("cuda")
    with pytest.raises(UserError, match="wanted cpu or cuda, got tpu"):
        choose_device("tpu")


@pytest.mark.gpu
@pytest.mark.parametrize("name", kernels.OPS)
def test_every_op_is_checked_and_measured_on_a_gpu(name):
    meter = CudaMeter(calls=2)
    rows = list(kernels.run(meter, [torch.float32], {name: [SMALL]}, rounds=2))
    assert all(row.call_ms for row in rows)
