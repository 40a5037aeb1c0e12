"""Estimates against what is measured, and plans against their budget."""

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from hvae.bench.measure import CpuMeter
from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig
from hvae.models.recompute import LEVELS, Recompute
from hvae.training import Config
from hvae.training import plan as planning
from hvae.training.build import build_model
from hvae.training.footprint import footprint
from hvae.training.memory_plan import fitted, kept_numbers, plan_for, plans_of
from hvae.training.plan import make_plan
from hvae.training.step import Stepper

MODEL = ModelConfig.model_validate(
    {
        "size": (16, 16),
        "channels": 3,
        "encoder": "16x2,16d2,8x2",
        "decoder": "8x2,16m8,16x2",
        "width": 24,
        "widths": {8: 32},
        "z_channels": 4,
    }
)
PLANS = list(plans_of(MODEL))
CPU = torch.device("cpu")


@pytest.mark.parametrize("plan", PLANS[::3], ids=lambda plan: str(plan.decoder))
def test_the_estimate_is_what_is_then_measured(plan: Recompute) -> None:
    estimate = footprint(MODEL, 2, plan)
    model = HVAE(MODEL)
    model.recompute(plan)
    x = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)

    def step() -> None:
        (-model(x).elbo.mean()).backward()
        model.zero_grad()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = model(x)
    events = profiler.profiler.kineto_results.events()
    held = sum(event.nbytes() for event in events if event.name() == "[memory]")
    del kept
    assert estimate.held == pytest.approx(held, rel=0.05)
    assert estimate.peak == pytest.approx(CpuMeter().extra_peak_bytes(step), rel=0.15)
    assert estimate.parameters == sum(p.numel() for p in model.parameters())
    assert estimate.states == 4 * 4 * estimate.parameters


def test_recomputing_every_block_costs_about_a_forward() -> None:
    kept, again = (footprint(MODEL, 1, plan).flops for plan in (PLANS[0], PLANS[-1]))
    assert 1.2 < again / kept < 1.34


def test_plans_go_from_fast_to_small() -> None:
    kept = [kept_numbers(MODEL, plan) for plan in PLANS]
    assert kept[0] == max(kept)
    assert kept[-1] < 0.25 * kept[0]
    assert set(PLANS[-1].decoder.values()) == {LEVELS[-1]}


def test_the_fastest_plan_that_fits_is_taken() -> None:
    free, all_blocks = footprint(MODEL, 64), footprint(MODEL, 64, PLANS[-1])
    assert fitted(MODEL, 64, free.total, PLANS)[0] == Recompute()
    middle = (free.total + all_blocks.total) / 2
    plan, found = fitted(MODEL, 64, middle, PLANS)
    assert plan.decoder
    assert "block" not in plan.decoder.values()
    assert found.total <= middle
    assert fitted(MODEL, 64, 1.0, PLANS)[1].total > 1.0  # none fits: the smallest


def test_a_budget_that_nothing_fits_is_refused(tiny: Callable[..., Config]) -> None:
    config = tiny("train.memory_gib=1e-6")
    with pytest.raises(UserError, match=r"even when every block is recomputed.*train\.accumulate"):
        plan_for(MODEL, config.train, 8, CPU, bf16=False)


def test_the_whole_machine_is_enough_for_a_small_model(tiny: Callable[..., Config]) -> None:
    config = tiny("train.memory_gib=auto")
    assert plan_for(MODEL, config.train, 8, CPU, bf16=False) == Recompute()


def test_levels_are_given_for_all_resolutions_or_by_name(tiny: Callable[..., Config]) -> None:
    everywhere = tiny("train.checkpoint_activations=block", "train.head_bands=2").train
    plan = plan_for(MODEL, everywhere, 8, CPU, bf16=False)
    assert plan.decoder == dict.fromkeys((8, 16), "block")
    assert plan.head == 2
    named = tiny("train.checkpoint_activations={16: pointwise}").train
    assert plan_for(MODEL, named, 8, CPU, bf16=False).encoder == {16: "pointwise"}
    wrong = tiny("train.checkpoint_activations={32: block}").train
    with pytest.raises(UserError, match="no block stands at resolution 32"):
        plan_for(MODEL, wrong, 8, CPU, bf16=False)


def test_regional_compilation_takes_whole_blocks_only(tiny: Callable[..., Config]) -> None:
    config = tiny("train.compile=regional", "train.checkpoint_activations=pointwise")
    with pytest.raises(UserError, match="wanted none or block, got pointwise"):
        plan_for(MODEL, config.train, 8, CPU, bf16=False)


@pytest.mark.parametrize("value", ["0", "-1", "much"])
def test_a_budget_is_auto_or_positive(tiny: Callable[..., Config], value: str) -> None:
    with pytest.raises(UserError, match=r"train\.memory_gib"):
        tiny(f"train.memory_gib={value}")


def test_a_built_model_recomputes_what_its_run_asks_for(tiny: Callable[..., Config]) -> None:
    config = tiny(
        "model.size=[8,8]", "model.channels=1", "train.checkpoint_activations=elementwise"
    )
    assert build_model(config, CPU).decoder.levels == {4: "elementwise", 8: "elementwise"}


def test_a_plan_measures_and_writes_nothing(tiny: Callable[..., Config], tmp_path) -> None:
    before = set(tmp_path.iterdir())
    plan = make_plan(tiny("train.accumulate=2"), device="cpu")
    assert plan.images_per_second is not None
    assert plan.measured_batch == plan.footprint.batch == 2
    assert plan.record()["total_bytes"] == plan.footprint.total
    assert "2 (4 per step in 2 parts)" in plan.rows()["images at once"]
    assert set(tmp_path.iterdir()) == before


def test_a_plan_is_measured_on_one_image_where_a_step_would_take_long(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def slow(config: Config, plan: object, device: torch.device, batch: int) -> float:
        timed.append(batch)
        return 0.1

    monkeypatch.setattr("hvae.training.plan._images_per_second", slow)
    assert make_plan(tiny(), device="cpu").measured_batch == 1
    assert timed == [1]


@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_run_that_recomputes_is_the_run_that_keeps(
    tiny: Callable[..., Config], level: str
) -> None:
    keys = ("model.size=[8,8]", "model.channels=1")
    configs = [tiny(*keys), tiny(*keys, f"train.checkpoint_activations={level}")]
    kept, again = (Stepper(build_model(c, CPU), c.train, c.seed) for c in configs)
    for _ in range(3):
        x = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
        assert kept.step(x).objective == again.step(x).objective
    for file, tensors in kept.tensors().items():
        other = again.tensors()[file]
        assert all(torch.equal(tensor, other[name]) for name, tensor in tensors.items())


def test_the_place_of_a_bad_number_is_found_under_recomputation(
    tiny: Callable[..., Config],
) -> None:
    config = tiny("model.size=[8,8]", "model.channels=1", "train.checkpoint_activations=pointwise")
    stepper = Stepper(build_model(config, CPU), config.train, config.seed)
    resnet = stepper.model.decoder.blocks[1].resnet
    with torch.no_grad():
        for conv in (resnet.c2, resnet.c3):
            conv.weight.fill_(1e30)
    x = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    stepper.step(x)
    assert stepper.locate(x).module == "decoder.blocks.1.resnet.c3"


def test_speed_is_that_of_the_plan_that_is_told(tiny, monkeypatch):
    timed = []

    class Watched(planning.Stepper):
        def step(self, *batch, **given):
            timed.append(self.model.decoder.levels)
            return super().step(*batch, **given)

    monkeypatch.setattr(planning, "Stepper", Watched)
    plan = make_plan(tiny("train.checkpoint_activations=block"), device="cpu")
    assert plan.recompute.decoder
    assert timed
    assert all(levels == plan.recompute.decoder for levels in timed)


def test_a_budget_is_planned_for_once(tiny, monkeypatch):
    """The timed model is of one image, which would fit without recomputing."""
    plans = []

    def counted(*args, **options):
        plans.append(plan_for(*args, **options))
        return plans[-1]

    plan_for = planning.plan_for
    monkeypatch.setattr(planning, "plan_for", counted)
    monkeypatch.setattr("hvae.training.build.plan_for", counted)
    make_plan(tiny("train.memory_gib=1"), device="cpu")
    assert len(plans) == 1
