"""Sampling: one sample is one seed and one index, whatever it is drawn together with."""

import pytest
import torch

from hvae import ops
from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig
from hvae.models.sampling import CHUNK
from hvae.ops.philox import derive_seed


@pytest.mark.parametrize("output", ["sample", "mean"])
def test_sample_i_is_the_same_bits_whatever_is_drawn_with_it(make_model, output):
    model = make_model(channels=3, widths={4: 12})
    whole = model.sample(2 * CHUNK + 5, seed=3, output=output)
    for first, n in [(0, 1), (0, CHUNK), (1, CHUNK), (CHUNK - 1, 2), (20, 17), (36, 1), (5, 0)]:
        part = model.sample(n, first_index=first, seed=3, output=output)
        assert torch.equal(part, whole[first : first + n])


def test_the_given_latents_of_sample_i_are_the_ones_used(make_model):
    model = make_model()
    n = CHUNK + 3
    latents = [torch.randn(n, *shape) for shape in model.latent_shapes[:2]]
    whole = model.sample(n, latents=latents, first_index=9)
    part = model.sample(4, latents=[z[10:14] for z in latents], first_index=19)
    assert torch.equal(part, whole[10:14])


def test_samples_differ_between_seeds_and_indices(make_model):
    model = make_model()
    first, second = model.sample(2, seed=0)
    assert not torch.equal(first, second)
    assert not torch.equal(first, model.sample(1, seed=1)[0])


def test_sampling_leaves_the_global_generator_alone(make_model):
    model = make_model()
    state = torch.get_rng_state()
    model.sample(2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("given", [1, 2, 4])
def test_giving_what_would_be_drawn_changes_nothing(make_model, given):
    model = make_model()
    rng = ops.make_rng(derive_seed(5, "sample"))
    with torch.no_grad():
        latents = model.decoder(CHUNK, rng, temperature=[0.8] * 4).latents
    drawn = model.sample(CHUNK, seed=5, temperature=0.8)
    assert torch.equal(model.sample(CHUNK, seed=5, temperature=0.8, latents=latents[:given]), drawn)


def test_temperature_zero_with_the_mean_depends_on_no_seed(make_model):
    model = make_model()
    cold = model.sample(3, temperature=0.0, output="mean", seed=0)
    assert torch.equal(cold, model.sample(3, temperature=0.0, output="mean", seed=1))
    assert torch.equal(cold[0], cold[2])
    assert not torch.equal(cold, model.sample(3, temperature=1.0, output="mean"))


def test_temperature_acts_on_the_latents_alone(make_model):
    model = make_model()
    drawn = model.sample(64, temperature=0.0)
    assert not torch.equal(drawn[0], drawn[1])


def test_each_group_may_have_its_own_temperature(make_model):
    model = make_model()
    same = model.sample(2, temperature=[0.7] * 4, output="mean")
    assert torch.equal(same, model.sample(2, temperature=0.7, output="mean"))
    coarse = model.sample(2, temperature=[1, 0, 0, 0], output="mean")
    assert not torch.equal(coarse, model.sample(2, temperature=0.0, output="mean"))
    rng = ops.make_rng(derive_seed(0, "sample"))
    with torch.no_grad():
        latents = model.decoder(CHUNK, rng, temperature=[1.0, 0.0, 0.0, 0.0]).latents
    expected = model.decode([latents[0]], temperature=0.0).mean_image()
    assert (expected[:2].int() - coarse.int()).abs().max() <= 1


@pytest.mark.parametrize("temperature", [1.0, 1.2])
def test_samples_of_hot_latents_are_finite(make_model, temperature):
    model = make_model()
    with torch.no_grad():
        ladder = model.decoder(64, ops.make_rng(0), temperature=[temperature] * 4)
    assert all(z.isfinite().all() for z in [*ladder.latents, ladder.state])


def test_no_samples_are_an_empty_tensor(make_model):
    images = make_model().sample(0)
    assert images.shape == (0, 1, 8, 8)
    assert images.dtype == torch.uint8


def test_a_double_precision_model_samples_too(make_model):
    assert make_model().double().sample(2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "mode"}, 'output: wanted "sample" or "mean", got \'mode\''),
        ({"n": -1}, "wanted n and first_index of at least 0, got -1 and 0"),
        ({"first_index": -2}, "wanted n and first_index of at least 0, got 1 and -2"),
        ({"temperature": [1.0, 1.0]}, "temperature: wanted one number or 4, got 2"),
        (
            {"latents": [torch.zeros(1, 2, 1, 1)] * 5},
            "wanted at most 4 latents, got 5",
        ),
        (
            {"latents": [torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 2, 2)]},
            "latent 1: wanted (1, 2, 4, 4), got (1, 2, 2, 2)",
        ),
        (
            {"n": 3, "latents": [torch.zeros(1, 2, 1, 1)]},
            "latent 0: wanted (3, 2, 1, 1), got (1, 2, 1, 1)",
        ),
    ],
)
def test_wrong_arguments_are_named(make_model, arguments, message):
    with pytest.raises(UserError) as caught:
        make_model().sample(**{"n": 1, **arguments})
    assert str(caught.value) == message


@pytest.mark.parametrize(("side", "chunk"), [(8, 16), (256, 16), (512, 5), (1024, 1)])
def test_large_samples_are_drawn_few_at_a_time(side: int, chunk: int) -> None:
    model = HVAE(ModelConfig(size=(side, side), channels=3, encoder=f"{side}d{side},1",
                             decoder=f"1,{side}m1", width=1))  # fmt: skip
    assert model.chunk == chunk


def test_a_sample_never_changes_at_a_chunk_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HVAE(ModelConfig(size=(8, 8), channels=1, encoder="8x1", decoder="8x1", width=8)).eval()
    monkeypatch.setattr(HVAE, "chunk", 5)
    whole = model.sample(12, seed=3)
    for first, n in [(0, 1), (4, 2), (7, 5)]:
        assert torch.equal(model.sample(n, seed=3, first_index=first), whole[first : first + n])
