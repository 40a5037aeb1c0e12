"""One optimisation step: what it depends on, what it changes, and what it survives."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hvae.errors import TrainingError
from hvae.ops import make_rng
from hvae.training import Config, TrainConfig
from hvae.training.build import build_model
from hvae.training.optim import learning_rate
from hvae.training.precision import uses_bf16
from hvae.training.step import Stepper, StepReport

MakeStepper = Callable[..., Stepper]


@pytest.fixture
def stepper(tiny: Callable[..., Config]) -> MakeStepper:
    """Builds a stepper of the tiny run with `key=value`s on top."""

    def make(*overrides: str) -> Stepper:
        config = tiny("model.size=[8,8]", "model.channels=1", *overrides)
        return Stepper(build_model(config, torch.device("cpu")), config.train, config.seed)

    return make


def batches(count: int, size: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (size, 1, 8, 8)
    return [torch.randint(256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)]


def copied(stepper: Stepper) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint, as `checkpoint.save` and `read_tensors` would return them."""
    return {
        file: {name: tensor.detach().clone().contiguous() for name, tensor in named.items()}
        for file, named in stepper.tensors().items()
    }


def assert_equal_states(a: Stepper, b: Stepper) -> None:
    first, second = copied(a), copied(b)
    for file, named in first.items():
        assert named.keys() == second[file].keys()
        for name, tensor in named.items():
            assert torch.equal(tensor, second[file][name]), f"{file}: {name}"
    assert a.state_dict() == b.state_dict()


@pytest.mark.parametrize("optimizer", ["adamax", "adamw"])
def test_equal_steps_give_equal_bits(stepper, optimizer):
    first, second = (stepper(f"train.optimizer={optimizer}") for _ in range(2))
    for x in batches(4):
        assert first.step(x).objective == second.step(x).objective
    assert_equal_states(first, second)


@pytest.mark.parametrize("optimizer", ["adamax", "adamw"])
def test_a_restored_stepper_goes_on_as_if_it_had_never_stopped(stepper, optimizer):
    data = batches(6)
    whole, part, rest = (stepper(f"train.optimizer={optimizer}") for _ in range(3))
    for x in data:
        whole.step(x)
    for x in data[:3]:
        part.step(x)
    rest.load(copied(part), json.loads(json.dumps(part.state_dict())))
    for x in data[3:]:
        rest.step(x)
    assert_equal_states(whole, rest)


def test_initial_weights_depend_on_the_seed_alone(stepper):
    first = stepper().model.state_dict()
    torch.rand(3)
    again, other = stepper().model.state_dict(), stepper("seed=1").model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.out_conv.weight"], other["decoder.out_conv.weight"])


def test_steps_leave_the_global_generator_alone(stepper):
    each = stepper()
    state = torch.get_rng_state()
    each.step(batches(1)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_every_step_draws_its_own_noise(stepper):
    each = stepper("train.lr=1e-12", "train.objective.free_bits=0", "train.objective.beta=1e-12")
    (x,) = batches(1)
    assert each.step(x).nll != each.step(x).nll


def test_a_step_counts_its_images(stepper):
    each = stepper()
    for x, images in zip(batches(2, size=3), (3, 6), strict=True):
        each.step(x)
        assert each.images == images
    assert each.steps == 2


def test_training_lowers_the_objective(stepper):
    each = stepper("train.images=400", "train.objective.free_bits=0")
    reports = [each.step(batches(1)[0]) for _ in range(60)]
    bits = [report.nll / each.model.num_dims / math.log(2) for report in reports]
    assert sum(bits[-5:]) / 5 < sum(bits[:5]) / 5 - 0.3


def test_schedules_follow_the_images_seen(stepper):
    each = stepper(
        "train.images=40",
        "train.objective.kl_warmup_images=16",
        "train.objective.free_bits=0.1",
        "train.objective.free_bits_images=20",
        "train.objective.beta=0.5",
    )
    reports = [each.step(x) for x in batches(6)]
    assert [report.beta for report in reports] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    nats = 0.1 * each.model.num_dims / each.model.num_groups
    assert [report.free_bits for report in reports] == pytest.approx(
        [nats * share for share in (0.8, 0.6, 0.4, 0.2, 0, 0)]
    )
    rates = [learning_rate(images, each.config) for images in range(4, 28, 4)]
    assert [report.lr for report in reports] == rates


def test_left_out_schedules_are_shares_of_the_run(stepper):
    each = stepper("train.images=80", "train.objective.free_bits=0.1")
    reports: list[StepReport] = [each.step(x) for x in batches(10)]
    assert [report.beta for report in reports[:2]] == [1.0, 1.0]
    assert reports[-2].free_bits > 0
    assert reports[-1].free_bits == 0


def test_a_constant_weight_of_the_kl_is_there_from_the_first_step(stepper):
    each = stepper("train.objective.kl_schedule=constant", "train.objective.beta=0.5")
    assert [each.step(x).beta for x in batches(2)] == [0.5, 0.5]


def test_a_cyclical_weight_of_the_kl_rises_in_every_cycle(stepper):
    each = stepper(
        "train.images=32",
        "train.objective.kl_schedule=cyclical",
        "train.objective.kl_cycles=2",
        "train.objective.beta=4.0",
    )
    assert [each.step(x).beta for x in batches(8)] == [2.0, 4.0, 4.0, 4.0] * 2


def test_kl_shares_weigh_the_objective_and_not_what_is_reported(stepper):
    settings = ("train.objective.free_bits=0", "train.objective.kl_schedule=constant")
    plain, weighed = stepper(*settings), stepper(*settings, "train.objective.kl_share=true")
    for each in (plain, weighed):
        for block in each.model.decoder.blocks:
            block.posterior.c4.weight.data.mul_(200)  # or there is hardly a KL at first
    (x,) = batches(1)
    a, b = plain.step(x), weighed.step(x)
    assert a.nll == b.nll
    assert a.kl == b.kl
    dims = plain.model.num_dims
    assert a.objective == pytest.approx((a.nll + sum(a.kl)) / dims)
    assert b.objective != a.objective


def test_the_spectral_penalty_is_added_in_nats_per_image(stepper):
    plain, bounded = stepper(), stepper("train.objective.spectral=0.5")
    (x,) = batches(1)
    a, b = plain.step(x), bounded.step(x)
    assert a.spectral is None
    assert b.spectral is not None
    expected = a.objective + 0.5 * b.spectral / plain.model.num_dims
    assert b.objective == pytest.approx(expected)
    heads = [
        torch.linalg.matrix_norm(head.c4.weight.flatten(1), ord=2)
        for block in stepper().model.decoder.blocks
        for head in (block.posterior, block.prior)
    ]
    assert b.spectral == pytest.approx(sum(heads).item(), rel=2e-2)


def test_the_spectral_penalty_of_all_layers_covers_every_convolution(stepper):
    each = stepper("train.objective.spectral=0.1", "train.objective.spectral_layers=all")
    assert each.spectral is not None
    modules = dict(each.model.named_modules())
    convolutions = {f"{name}.weight" for name, m in modules.items() if hasattr(m, "kernel_size")}
    assert each.spectral.weights.keys() == convolutions


def test_a_large_spectral_penalty_shrinks_the_heads(stepper):
    norms = []
    for weight in (0, 30):
        each = stepper(f"train.objective.spectral={weight}", "train.images=400")
        for _ in range(30):
            each.step(batches(1)[0])
        heads = [block.posterior.c4.weight for block in each.model.decoder.blocks]
        norms.append(sum(torch.linalg.matrix_norm(w.flatten(1), ord=2).item() for w in heads))
    assert norms[1] < 0.8 * norms[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_restored_stepper_goes_on_under_every_help(stepper, precision):
    settings = (
        f"train.precision={precision}",
        "train.objective.spectral=0.5",
        "train.objective.spectral_layers=all",
        "train.objective.kl_share=true",
        "train.objective.kl_schedule=cyclical",
    )
    data = batches(6)
    whole, part, rest = (stepper(*settings) for _ in range(3))
    for x in data:
        whole.step(x)
    for x in data[:3]:
        part.step(x)
    for x in data[:1]:
        rest.step(x)  # what it did before is forgotten
    rest.load(copied(part), json.loads(json.dumps(part.state_dict())))
    for x in data[3:]:
        rest.step(x)
    assert_equal_states(whole, rest)


def test_moments_that_a_checkpoint_has_not_are_forgotten(stepper):
    """A roll-back to a checkpoint of no steps, as an imported one is."""
    fresh, used = stepper(), stepper()
    saved, state = copied(fresh), fresh.state_dict()
    for x in batches(2):
        used.step(x)
    used.load(saved, state)
    assert_equal_states(fresh, used)
    assert used.step(batches(1)[0]).objective == fresh.step(batches(1)[0]).objective
    assert_equal_states(fresh, used)


def test_an_objective_that_is_nan_is_left_out_though_its_gradient_is_finite(stepper, monkeypatch):
    each = stepper()
    losses = each._losses

    def spoiled(*arguments: object) -> object:
        elbo, loss = losses(*arguments)
        return elbo, loss + math.nan

    monkeypatch.setattr(each, "_losses", spoiled)
    report = each.step(batches(1)[0])
    assert report.skipped
    assert math.isnan(report.grad_norm)


def test_the_first_learning_rate_is_not_zero(stepper):
    assert stepper().step(batches(1)[0]).lr > 0


def poison(stepper: Stepper) -> None:
    """Makes one gradient element of every backward NaN."""

    def spoil(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[0] = math.nan
        return gradient

    stepper.model.decoder.gain.register_hook(spoil)


def test_one_nan_changes_nothing_but_the_counters(stepper):
    each, twin = stepper(), stepper()
    for x in batches(2):
        each.step(x)
        twin.step(x)
    before = copied(each)
    poison(each)
    report = each.step(batches(3)[2])
    assert report.skipped
    assert math.isnan(report.grad_norm)
    for file, named in copied(each).items():
        assert all(torch.equal(tensor, before[file][name]) for name, tensor in named.items())
    assert each.ema.updates == twin.ema.updates
    assert each.guard.skips == 1
    assert (each.steps, each.images) == (3, 12)
    assert all(parameter.grad is None for parameter in each.model.parameters())


def test_ten_nans_in_a_row_end_training(stepper):
    each = stepper()
    poison(each)
    (x,) = batches(1)
    for _ in range(9):
        assert each.step(x).skipped
    with pytest.raises(
        TrainingError, match="10 steps in a row had an objective or a gradient that is not finite"
    ):
        each.step(x)


def test_clipped_gradients_have_the_threshold_as_their_norm(stepper, monkeypatch):
    each = stepper()
    for x in batches(3):
        each.step(x)
    seen: list[float] = []
    step = each.optimizer.step

    def spy() -> None:
        gradients = [p.grad for p in each.model.parameters() if p.grad is not None]
        seen.append(torch.nn.utils.get_total_norm(gradients).item())
        step()

    monkeypatch.setattr(each.optimizer, "step", spy)
    each.guard.norms.extend([1e-4] * 60)
    report = each.step(batches(4)[3])
    assert report.grad_norm > report.clip_norm
    assert seen == pytest.approx([report.clip_norm], rel=1e-4)


def test_bf16_stays_near_fp32(stepper):
    exact, rough = stepper("train.images=400"), stepper("train.images=400", "train.precision=bf16")
    assert rough.bf16
    for x in batches(8):
        a, b = exact.step(x), rough.step(x)
        assert b.objective == pytest.approx(a.objective, rel=2e-2)
        assert b.grad_norm == pytest.approx(a.grad_norm, rel=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        elbo = rough.model(x, rng=make_rng(0))
    assert elbo.nll.dtype == elbo.kl.dtype == torch.float32
    dtypes = {tensor.dtype for named in rough.tensors().values() for tensor in named.values()}
    assert dtypes == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("fp32", {"avx512_bf16": True}, False),
        ("bf16", {}, True),
        ("auto", {}, False),
        ("auto", {"avx512_bf16": False, "amx_bf16": False}, False),
        ("auto", {"avx512_bf16": True}, True),
        ("auto", {"amx_bf16": True}, True),
    ],
)
def test_auto_precision_asks_the_processor(monkeypatch, precision, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert uses_bf16(TrainConfig(precision=precision), torch.device("cpu")) is expected


@pytest.mark.slow
def test_compiled_steps_agree_with_eager_ones(stepper):
    eager, compiled = stepper(), stepper("train.compile=true")
    for x in batches(3):
        a, b = eager.step(x), compiled.step(x)
        assert b.objective == pytest.approx(a.objective, rel=1e-4)
