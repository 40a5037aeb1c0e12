"""Steps that are recorded once and replayed are the steps that would have been taken."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.training import Config
from hvae.training.build import build_model
from hvae.training.cuda_graph import CudaGraph, Graph, GraphedBackward, check_graphs
from hvae.training.step import Stepper
from tests.training.tape import Tape

# Schedules that move at every step, so that a number kept from the recording would show.
MOVING = ("train.objective.free_bits=0.5", "train.images=64", "train.objective.kl_warmup_images=32")


def steppers(config: Config, device: str, graph: Graph) -> tuple[Stepper, Stepper]:
    """One that replays, and one that does not."""
    pair = []
    for graphed in (True, False):
        train = config.train.model_copy(update={"cuda_graphs": graphed and device == "cuda"})
        pair.append(Stepper(build_model(config, torch.device(device)), train, config.seed))
    replaying = pair[0]
    replaying.graphed = GraphedBackward(list(replaying.model.parameters()), graph)
    return pair[0], pair[1]


def assert_alike(replaying: Stepper, plain: Stepper, device: str, steps: int = 6) -> None:
    """Reports and weights of some steps, the last one on a smaller batch, are equal bit for bit."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        shape = (3 if step + 1 == steps else 4, 1, 8, 8)
        x = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(device)
        told = plain.model.condition is not None
        cond = torch.randint(2, shape[:1], generator=generator).to(device) if told else None
        assert replaying.step(x, cond) == plain.step(x, cond)
    own = replaying.model.state_dict()
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(own[name], tensor), name
    for name, tensor in plain.ema.tensors.items():
        assert torch.equal(replaying.ema.tensors[name], tensor), name


@pytest.fixture
def config(tiny: Callable[..., Config]) -> Callable[..., Config]:
    return lambda *overrides: tiny("model.size=[8,8]", "model.channels=1", *MOVING, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="default"),
        pytest.param(("model.preset=vdvae",), id="vdvae"),
        pytest.param(("train.objective.kl_share=true",), id="kl-share"),
        pytest.param(("train.objective.spectral=0.1",), id="spectral"),
        pytest.param(("train.checkpoint_activations=pointwise",), id="recomputing"),
        pytest.param(("train.checkpoint_activations=block", "train.head_bands=2"), id="blocks"),
        pytest.param(("train.precision=bf16",), id="bf16"),
        pytest.param(
            ("model.condition={kind: class, classes: [a, b], dropout: 0.5}",), id="conditional"
        ),
    ],
)
def test_recorded_steps_are_the_steps_themselves(config, overrides):
    tape = Tape()
    pair = steppers(config(*overrides), "cpu", tape)
    assert_alike(*pair, "cpu")
    assert tape.played


@pytest.mark.gpu
@pytest.mark.parametrize("compile", ["false", "regional"])
def test_graphs_on_a_gpu(config, compile):
    settings = config(f"train.compile={compile}")
    # Not torch.use_deterministic_algorithms, whose warnings would end the test.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        assert_alike(*steppers(settings, "cuda", CudaGraph()), "cuda")


class TestGraphedBackward:
    """The mechanism alone, on y = (w x)^2."""

    @pytest.fixture
    def weight(self) -> nn.Parameter:
        return nn.Parameter(torch.tensor([2.0, 3.0]))

    @pytest.fixture
    def run(self, weight: nn.Parameter) -> Callable[[Tensor], tuple[Tensor]]:
        def squares(x: Tensor) -> tuple[Tensor]:
            y = (weight * x).square().sum()
            y.backward()
            return (y.detach(),)

        return squares

    def test_gradients_do_not_add_up_over_calls(self, weight, run):
        call = GraphedBackward([weight], Tape())
        for scale in (1.0, 2.0):
            x = torch.tensor([1.0, 1.0]) * scale
            (y,) = call(run, x)
            assert weight.grad is not None
            assert torch.equal(weight.grad, 2 * weight.detach() * x**2)
            assert y == (weight.detach() * x).square().sum()
            weight.grad = None

    def test_weights_that_moved_in_place_count(self, weight, run):
        call = GraphedBackward([weight], Tape())
        call(run, torch.ones(2))
        with torch.no_grad():
            weight.mul_(10)
        (y,) = call(run, torch.ones(2))
        assert y == 1300

    def test_what_was_recorded_on_other_shapes_is_left_alone(self, weight, run):
        tape = Tape()
        call = GraphedBackward([weight], tape)
        call(run, torch.ones(2))
        weight.grad, count = None, len(tape.played)
        (y,) = call(run, torch.ones(3, 2))
        assert (y, len(tape.played)) == (39, count)

    def test_a_number_read_on_the_way_is_refused(self, weight):
        def run(x: Tensor) -> tuple[Tensor]:
            y = (weight * x).sum()
            y.backward()
            return (y.detach() * y.item(),)

        with pytest.raises(RuntimeError, match="waits for the device"):
            GraphedBackward([weight], Tape())(run, torch.ones(2))


def test_a_stepper_with_a_graph_is_freed_at_once(config):
    """A run that was rolled back builds another one, for which a device may have no room."""
    stepper, _ = steppers(config(), "cpu", Tape())
    stepper.step(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    found = weakref.ref(stepper)
    gc.disable()
    try:
        del stepper, _
        assert found() is None
    finally:
        gc.enable()


def test_a_run_that_cannot_have_graphs_is_refused_before_it_begins(config):
    train = config("train.cuda_graphs=true").train
    with pytest.raises(UserError, match=r"cuda_graphs: wanted one process on a GPU, got 1 on cpu"):
        check_graphs(train, torch.device("cpu"), 1)
    with pytest.raises(UserError, match="got 2 on cuda"):
        check_graphs(train, torch.device("cuda"), 2)
    check_graphs(train, torch.device("cuda"), 1)
    check_graphs(config().train, torch.device("cpu"), 2)


def test_graphs_and_parts_exclude_each_other(config):
    with pytest.raises(UserError, match=r"train\.accumulate is 2"):
        config("train.cuda_graphs=true", "train.accumulate=2")
