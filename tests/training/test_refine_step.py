"""Steps of a refiner: the model stays frozen, and a restored stepper goes on alike."""

import hashlib

import pytest
import torch

from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig
from hvae.ops import make_rng
from hvae.training.recovery import Diverged
from hvae.training.refine_config import GAMMAS, RefineConfig
from hvae.training.refine_step import RefineStepper


def base(**settings):
    torch.manual_seed(0)
    config = ModelConfig(
        size=(8, 8), channels=1, encoder="8x1,8d2,4x1", decoder="4x2,8m4", width=8, z_channels=2,
        **settings,
    )  # fmt: skip
    model = HVAE(config).eval()
    with torch.no_grad():
        for block in model.decoder.blocks:
            block.prior.c4.weight.normal_(std=0.3)
        for start in model.decoder.bias_maps.values():
            start.normal_()
    return model


def batches(count, n=6):
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=draw) for _ in range(count)
    ]


def stepper(model=None, seed=0, bf16=False, **settings):
    """With all parts, unless told otherwise."""
    parts = {"refiner": {"output": True}, "judged": "both", "penalty_every": 1}
    config = RefineConfig(images=600, **{**parts, **settings})
    return RefineStepper(model or base(), config, seed, bf16=bf16)


def digest(model):
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in state)).hexdigest()


def flat(stepper):
    return {
        f"{file}: {name}": tensor.clone()
        for file, named in stepper.tensors().items()
        for name, tensor in named.items()
    }


def test_the_model_is_frozen_to_the_last_bit():
    model = base()
    x = batches(1)[0]
    before, elbo = digest(model), model(x, rng=make_rng(0)).elbo
    each = stepper(model)
    for x in batches(3):
        each.step(x)
    assert digest(model) == before
    assert torch.equal(model(batches(1)[0], rng=make_rng(0)).elbo, elbo)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bfloat16_is_close_and_leaves_penalties_and_weights_in_float32():
    """With a penalty in every second step: there only the made images differ."""
    exact, rough = stepper(penalty_every=2), stepper(penalty_every=2, bf16=True)
    first, second = batches(2)
    wanted, got = exact.step(first), rough.step(first)
    assert got.penalty_real == wanted.penalty_real  # of the same images by the same weights
    assert got.penalty_fake == pytest.approx(wanted.penalty_fake, rel=0.05)
    rough.discriminator.load_state_dict(exact.discriminator.state_dict())
    wanted, got = exact.step(second), rough.step(second)
    assert got.margin != wanted.margin
    assert got.margin == pytest.approx(wanted.margin, abs=0.02)
    assert got.adversarial == pytest.approx(wanted.adversarial, rel=0.02)
    assert {tensor.dtype for tensor in flat(rough).values()} == {torch.float32}


def test_every_part_moves():
    each = stepper()
    before = flat(each)
    for x in batches(3):  # behind layers that start at zero, a gradient arrives in the second step
        each.step(x)
    after = flat(each)
    unmoved = [
        name for name, tensor in before.items()
        if name.startswith(("refiner:", "discriminator:")) and torch.equal(tensor, after[name])
    ]  # fmt: skip
    # These lift real and made images alike.
    assert unmoved == [f"discriminator: scales.0.logits.{r}.bias" for r in (4, 8)]


def test_a_restored_stepper_goes_on_as_if_it_had_never_stopped():
    model, data = base(), batches(4)
    through, first = stepper(model), stepper(model)
    for x in data:
        report = through.step(x)
    for x in data[:2]:
        first.step(x)
    second = stepper(model, seed=9)
    second.noise_seed = first.noise_seed
    saved = {f: {n: t.clone() for n, t in named.items()} for f, named in first.tensors().items()}
    second.load(saved, first.state_dict())
    for x in data[2:]:
        again = second.step(x)
    assert again == report
    for name, tensor in flat(through).items():
        assert torch.equal(tensor, flat(second)[name]), name


def test_both_halves_are_there():
    each = stepper(weights={"adversarial": 0.0, "l1": 1.0, "features": 0.0, "lowpass": 0.0})
    x = batches(1)[0]
    fake, unrefined = each._fake(x, None, 0)
    assert torch.equal(fake, unrefined)  # nothing is refined yet
    rebuilt = each.model.decode_image(each.model.encode(x[:3], mode="mean"))
    near = (fake[:3] - (rebuilt / 127.5 - 1)).abs().mean()
    assert near < (fake[3:] - (rebuilt / 127.5 - 1)).abs().mean() + 1
    drawn = each.model.decoder(
        3, make_rng(each.noise_seed, 3), temperature=[each._temperature()] * 3
    )
    torch.testing.assert_close(fake[3:], each.model.image(drawn) / 127.5 - 1)


def test_the_discriminator_learns_what_is_real():
    each = stepper(gamma=0.0, lr_discriminator=3e-3, weights={"adversarial": 0.0})
    reports = [each.step(x) for x in batches(40, n=16)]
    assert abs(reports[0].margin) < 1
    assert reports[-1].margin > 1
    assert reports[-1].discriminator < reports[0].discriminator


def test_without_the_adversary_reconstructions_come_closer():
    weights = {"adversarial": 0.0, "l1": 1.0, "features": 0.0, "lowpass": 0.0}
    each = stepper(lr=1e-2, weights=weights)
    x = torch.full((8, 1, 8, 8), 20, dtype=torch.uint8)  # darker than an untrained model's mean
    reports = [each.step(x) for _ in range(40)]
    assert reports[-1].l1 < 0.7 * reports[0].l1


def test_injectors_get_nothing_from_losses_on_reconstructions():
    weights = {"adversarial": 0.0, "l1": 1.0, "features": 1.0, "lowpass": 1.0}
    each = stepper(weights=weights)
    before = flat(each)
    for x in batches(3):
        each.step(x)
    for name, tensor in flat(each).items():
        if name.startswith("refiner: injectors"):
            assert torch.equal(tensor, before[name]), name


def test_norms_by_loss_change_nothing():
    weights = {"adversarial": 0.0, "l1": 2.0, "features": 0.0, "lowpass": 0.0}
    silent, told = stepper(weights=weights), stepper(weights=weights)
    for x in batches(2):
        first, second = silent.step(x), told.step(x, by_loss=True)
    assert first.grad_norms == {}
    assert second.grad_norms["l1"] == pytest.approx(second.grad_norm)
    assert {second.grad_norms[name] for name in ("adversarial", "features", "lowpass")} == {0.0}
    for name, tensor in flat(silent).items():
        assert torch.equal(tensor, flat(told)[name]), name


def test_what_is_judged_alone_moves_the_discriminator():
    x = batches(1, n=8)[0]
    both, samples = stepper(), stepper(judged="samples")
    reports = [each.step(x) for each in (both, samples)]
    assert reports[0].margin != reports[1].margin
    changed = x.clone()
    changed[:4] = 255 - changed[:4]  # that half is only reconstructed
    other = stepper(judged="samples")
    assert other.step(changed).margin == reports[1].margin
    assert stepper(judged="reconstructions").step(changed).margin != pytest.approx(
        stepper(judged="reconstructions").step(x).margin
    )


def test_augmentation_ramps_up_and_keeps_pairs_together():
    each = stepper(augment=0.5)
    x = torch.rand(6, 1, 8, 8)
    assert torch.equal(each._seen(x), x)  # from 0 on
    each.images = 300
    assert not each.step(batches(1)[0]).skipped
    assert not torch.equal(each._seen(x), x)
    assert torch.equal(each._seen(x), each._seen(x))


def test_without_an_output_refiner_all_images_stand_against_samples():
    each = stepper(refiner={"output": False})
    x = batches(1, n=6)[0]
    fake, _ = each._fake(x, None, 0)
    drawn = each.model.decoder(
        6, make_rng(each.noise_seed, 0), temperature=[each._temperature()] * 3
    )
    torch.testing.assert_close(fake, each.model.image(drawn) / 127.5 - 1)
    report = each.step(x)
    assert not report.skipped
    assert (report.l1, report.features, report.lowpass) == (0.0, 0.0, 0.0)
    with pytest.raises(UserError, match="they stay as they are"):
        stepper(refiner={"output": False}, judged="reconstructions")


def test_lazy_penalties_come_every_so_often():
    each = stepper(penalty_every=3)
    penalties = [each.step(x).penalty_real for x in batches(7)]
    assert [penalty is not None for penalty in penalties] == [n % 3 == 0 for n in range(7)]


@pytest.mark.parametrize("pairing", ["relativistic", "hinge", "non_saturating"])
def test_every_pairing_takes_steps(pairing):
    each = stepper(pairing=pairing, lecam=0.1)
    reports = [each.step(x) for x in batches(2)]
    assert not any(report.skipped for report in reports)


def test_a_conditional_model_is_refined_under_its_conditions():
    model = base(condition={"kind": "class", "classes": ("a", "b"), "width": 4})
    each = stepper(model)
    (x,) = batches(1)
    report = each.step(x, torch.tensor([0, 1, 0, 1, 0, 1]))
    assert not report.skipped


def test_one_nan_changes_nothing_and_ten_end_the_stage(monkeypatch):
    each = stepper()
    each.step(batches(1)[0])
    before = flat(each)
    with torch.no_grad():
        each.discriminator.scales[0].logits["4"].bias.fill_(torch.nan)
    names = [name for name in before if "logits.4.bias" not in name]
    report = each.step(batches(1)[0])
    assert report.skipped
    for name in names:
        assert torch.equal(flat(each)[name], before[name]), name
    for _ in range(8):
        each.step(batches(1)[0])
    with pytest.raises(Diverged, match="10 refinement steps"):
        each.step(batches(1)[0])


def test_gamma_follows_the_size_of_the_images():
    config = RefineConfig()
    for side, gamma in GAMMAS.items():
        assert config.gamma_at(side) == pytest.approx(gamma)
    assert config.gamma_at(8) == pytest.approx(GAMMAS[32])
    assert config.gamma_at(1024) == pytest.approx(GAMMAS[256])
    assert GAMMAS[64] < config.gamma_at(96) < GAMMAS[128]
    assert RefineConfig(gamma=0.5).gamma_at(64) == 0.5


def test_schedules_follow_the_images_seen():
    each = stepper(gamma=2.0, gamma_final=0.1, margin=None, lr=3e-4, lr_final=0.25)
    reports = [each.step(x) for x in batches(100)]
    assert reports[0].gamma == pytest.approx(2.0, rel=0.01)
    assert reports[60].gamma == pytest.approx(0.2)
    assert reports[-1].lr == pytest.approx(0.25 * 3e-4)


def test_gamma_follows_the_margin():
    easy, hard = stepper(gamma=1.0, margin=1e-3, lr_discriminator=3e-3), stepper(margin=50.0)
    for x in batches(30, n=16):
        reports = easy.step(x), hard.step(x)
    assert reports[0].margin > 1e-3
    assert reports[0].gamma > 1.2
    assert reports[1].gamma < 0.8 * GAMMAS[32]
    again = stepper(gamma=1.0, margin=1e-3)
    again.load(easy.tensors(), easy.state_dict())
    assert again.gamma_scale == easy.gamma_scale


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        stepper().step(batches(1, n=1)[0])
