"""Two processes over gloo are one run: what they say, compute, decide, write and survive.

Every torchrun here starts real processes, so that each does several things; `worker.py` has them.
"""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from hvae import checkpoint
from hvae.data import Loader, open_source
from hvae.data.sampler import block
from hvae.errors import UserError
from hvae.ops.philox import derive_seed, make_rng
from hvae.training import Config, fit, load_config
from hvae.training.build import build_model
from hvae.training.distributed import World
from hvae.training.metrics_log import MetricsLog
from hvae.training.progress import TrainingProgress
from hvae.training.signals import stop_on_signal
from hvae.training.step import Stepper
from tests.training.test_resume import MEASURED

WORKER = Path(__file__).with_name("worker.py")
TIMEOUT = 300.0  # seconds, on a busy machine


def torchrun(logs: Path, *arguments: str, restarts: int = 0) -> tuple[int, list[str], list[str]]:
    """Runs two processes; returns torchrun's exit code, and what each printed: stdout and stderr.

    Of a run with restarts, what was printed last.
    """
    logs.mkdir()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        f"--max-restarts={restarts}", "--redirects=3", f"--log-dir={logs}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, timeout=TIMEOUT, capture_output=True, text=True, check=False)
    printed = [
        [sorted(logs.rglob(f"{rank}/{name}.log"))[-1].read_text() for rank in (0, 1)]
        for name in ("stdout", "stderr")
    ]
    return done.returncode, printed[0], printed[1]


def scenario(name: str, folder: Path, config: Path, *, restarts: int = 0) -> list[dict[str, Any]]:
    """What the two processes of a scenario saw."""
    arguments = (str(WORKER), name, str(folder), str(config))
    code, _, errors = torchrun(folder / f"logs-{name}", *arguments, restarts=restarts)
    assert code == 0, errors
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


def rows(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in row.items() if k not in MEASURED} for row in lines if row["kind"] == kind
    ]


def contents(run: Path) -> dict[str, bytes]:
    """The bytes of the tensors and sheets a run ends with."""
    folder = checkpoint.latest_checkpoint(run)
    assert folder is not None
    files = [*folder.glob("*.safetensors"), *(run / "samples").iterdir()]
    assert len(files) == 5
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def vector(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Relative L2."""
    assert found.keys() == wanted.keys()
    a, b = vector(found), vector(wanted)
    return float((a - b).norm() / b.norm())


# -- What they say -------------------------------------------------------------------------------


def test_what_processes_say_to_each_other(stepped):
    for rank, each in enumerate(process["words"] for process in stepped[2]):
        assert each["mean"] == [4.0, 5.0]
        images = len(block(3, rank, 2))
        # Torch divides gradients by the number of processes; what is left is the mean over all.
        wanted = torch.tensor([1.0, 10.0]).expand(images, 2) / 3 * 2
        torch.testing.assert_close(torch.tensor(each["gradient"]), wanted)
        assert each["same"] == [0.0, 7.0]
        assert each["any"] == [False, True, True]
        assert each["gather"] == [None, "éééé"]
        assert each["by_first"] == {"rank": 0}
        assert each["by_first_error"] == ["UserError", "asked in 0"]
        assert each["agreed_error"] == ["UserError", "process 1 of 2: no such photo"]
        assert each["in_step_error"] == ["UserError", "process 1 of 2: a bad photo"]
        assert each["end"] == [1, 2]


def test_one_process_says_nothing():
    world, values = World(device="cpu"), torch.tensor([[1.0, 4.0], [3.0, 8.0]])
    assert torch.equal(world.mean(values, 2), values.mean(0))
    assert world.same(values) is values
    assert [world.any(flag) for flag in (False, True)] == [False, True]
    assert world.gather("x") == ["x"]
    assert world.by_first(lambda: "y") == "y"
    with pytest.raises(UserError, match="as it was"), world.agreed():
        raise UserError("as it was")
    with pytest.raises(RuntimeError, match="gloo"), world.noticing_losses():
        raise RuntimeError("gloo: not of a run of one process")


def test_the_other_processes_keep_quiet(tmp_path, capsys):
    log = MetricsLog(tmp_path / "metrics.jsonl", writes=False)
    log.append({"kind": "train", "step": 1})
    assert not log.file.exists()
    MetricsLog(log.file).append({"kind": "train", "step": 1})
    log.cut_after(0)
    assert log.rows("train") == []
    assert len(MetricsLog(log.file).rows("train")) == 1
    with TrainingProgress(10, 0, quiet=True) as progress:
        progress.update(5)
        progress.report(5, "fast")
        progress.say("hello")
    assert capsys.readouterr() == ("", "")


def test_under_torchrun_a_second_signal_does_not_cut_a_save_short():
    with stop_on_signal(patient=True) as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stop.requested


def test_a_penalty_on_whole_weights_refuses_cut_ones(config_file):
    with pytest.raises(UserError, match=r"spectral needs whole weights.*sharding=ddp"):
        load_config(config_file, ("train.sharding=fsdp", "train.objective.spectral=0.1"))


# -- Which images they see -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 64])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_blocks_follow_each_other_and_leave_nothing_out(count, ranks):
    blocks = [block(count, rank, ranks) for rank in range(ranks)]
    assert [i for each in blocks for i in each] == list(range(count))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    assert len(blocks[0]) == max(map(len, blocks))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_processes_together_see_what_one_would(config_file, ranks, workers):
    """Order, mirroring and the cut at the end; the last batch has fewer images than processes."""
    source = open_source(load_config(config_file).data, "train")
    options = {"batch": 5, "seed": 3, "flip": True}
    alone = list(Loader(source, **options).batches(3, 19))
    shared = [
        list(Loader(source, **options, rank=rank, ranks=ranks, workers=workers).batches(3, 19))
        for rank in range(ranks)
    ]
    assert [batch.total for batch in alone] == [5, 5, 5, 1]
    for number, wanted in enumerate(alone):
        parts = [batches[number] for batches in shared]
        assert torch.equal(torch.cat([part.images for part in parts]), wanted.images)
        starts = [wanted.position + block(wanted.total, r, ranks).start for r in range(ranks)]
        assert [part.position for part in parts] == starts
        assert {part.total for part in parts} == {wanted.total}


def test_a_batch_smaller_than_the_number_of_processes_is_refused(config_file):
    source = open_source(load_config(config_file).data, "train")
    with pytest.raises(UserError, match=r"data\.batch is 4, but 5 processes train"):
        Loader(source, batch=4, seed=0, rank=0, ranks=5)


# -- What they compute ---------------------------------------------------------------------------


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)


def gradients(config: Config, x: Tensor) -> dict[str, Tensor]:
    stepper = Stepper(build_model(config, torch.device("cpu")), config.train, config.seed)
    stepper.images = len(x)
    stepper._losses(stepper.forward, (x,), len(x), None)[1].backward()
    return {name: p.grad for name, p in stepper.model.named_parameters()}


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, list[dict[str, Any]]]:
    """What both processes saw of single steps, with free bits between the KLs of their images."""
    folder = tmp_path_factory.mktemp("steps")
    base = {
        "runs_dir": str(folder),
        "data": {"source": "shapes", "size": 8, "channels": 1, "batch": 4},
        "model": {
            "encoder": "8x1,8d2,4x1", "decoder": "4x1,8m4", "width": 8, "z_channels": 2,
            "likelihood": {"mixtures": 2}, "size": [8, 8], "channels": 1,
        },
        "train": {"images": 30, "lr": 0.01, "warmup_images": 8, "precision": "fp32"},
    }  # fmt: skip
    objective: dict[str, Any] = {"kl_warmup_images": 0, "free_bits_images": 10**9}
    base["train"]["objective"] = objective
    config = Config.model_validate(base)
    model = build_model(config, torch.device("cpu"))
    kl = model(images(4), rng=make_rng(derive_seed(config.seed, "train"))).kl[:, 1].detach()
    halves = sorted((kl[:2].mean().item(), kl[2:].mean().item()))
    between = 0.75 * kl.mean().item() + 0.25 * halves[0]  # below the mean of all, above one half's
    assert halves[0] < between < kl.mean().item()
    objective["free_bits"] = between * model.num_groups / model.num_dims
    file = folder / "steps.yaml"
    file.write_text(json.dumps(base))
    return folder, load_config(file), scenario("steps", folder, file)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp", "parts"])
@pytest.mark.parametrize("count", [1, 4, 5], ids="{} images".format)
def test_gradients_are_those_of_one_process(stepped, sharding, count):
    """Also of an uneven batch, and of one that leaves a process without images."""
    folder, config, _ = stepped
    prefix = f"{sharding}.{count}."
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in load_file(folder / "steps.safetensors").items()
        if name.startswith(prefix)
    }
    wanted = gradients(config, images(count))
    assert distance(found, wanted) < 1e-6
    for name, tensor in wanted.items():  # one by one, since a small one would drown
        scale = max(tensor.norm().item(), 1e-6)
        assert (found[name] - tensor).norm().item() / scale < 1e-4, name
    one_half = gradients(config, images(count)[: len(block(count, 0, 2))])
    assert count == 1 or distance(one_half, wanted) > 1e-3


def test_gradients_of_parts_are_averaged_once(stepped):
    for each in stepped[2]:
        assert each["averaged"]["parts"] == each["averaged"]["ddp"] > 0


def test_three_steps_of_a_cut_model_are_those_of_one_process(stepped):
    folder, config, _ = stepped
    stepper = Stepper(build_model(config, torch.device("cpu")), config.train, config.seed)
    for _ in range(3):
        stepper.step(images(4))
    for stem, wanted in stepper.tensors().items():
        assert distance(load_file(folder / f"{stem}.st"), dict(wanted)) < 1e-4, stem


def test_whole_tensors_are_read_back_by_either_kind(stepped):
    for each in stepped[2]:
        assert all(each["round_trips"])
    assert len(stepped[2][0]["round_trips"]) > 100


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_all_leave_a_step_out_that_one_finds_not_finite(stepped, sharding):
    first, second = (each[f"nan_{sharding}"] for each in stepped[2])
    assert first == second
    assert first["skipped"]
    assert first["unchanged"]
    assert first["guard"]["nonfinite_in_row"] == 1
    assert first["place"]["module"] == "encoder.blocks.0"


# -- Runs ----------------------------------------------------------------------------------------

RUN = ("data.batch=5", "data.flip=true", "train.images=96", "train.checkpoint_every=15")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, dict[str, Any]]:
    """Runs of 20 steps, the last of which has one image: whole, in halves, with a lost process."""
    folder = tmp_path_factory.mktemp("runs")
    text = (WORKER.parent / "conftest.py").read_text().split('"""')[3]
    file = folder / "tiny.yaml"
    file.write_text(f"runs_dir: {folder}\n{text}")
    config = load_config(file, RUN)
    file.write_text(config.model_dump_json())
    found = scenario("halves", folder, file)
    shutil.copytree(folder / "half", folder / "elsewhere" / "half")
    shutil.copytree(folder / "half", folder / "alone" / "half")
    rest = scenario("rests", folder, file, restarts=1)
    assert found[0] == found[1]
    assert rest[0] == rest[1]
    return folder, config, found[0] | rest[0]


def test_ten_steps_and_ten_are_twenty_to_the_bit(runs):
    """A signal to the second process alone stops both after the same step."""
    folder, _, said = runs
    assert said["half"][:2] == [50, True]
    assert said["rest"] == said["whole"]
    assert said["whole"][:2] == [96, False]
    assert contents(folder / "half") == contents(folder / "whole")
    for kind in ("train", "eval"):
        assert rows(folder / "half", kind) == rows(folder / "whole", kind)


def test_a_lost_process_is_started_again_and_the_run_ends_with_the_same_bits(runs):
    folder, _, said = runs
    assert (folder / "killed").exists()
    assert said["lost"] == said["whole"]
    assert contents(folder / "lost") == contents(folder / "whole")
    assert rows(folder / "lost") == rows(folder / "whole")


def test_one_process_and_two_have_one_curve(runs):
    """Also one that goes on where two stopped, and two that go on with a cut model."""
    folder, config, said = runs
    one = fit(config.model_copy(update={"name": "one"}))
    update = {"name": "half", "runs_dir": str(folder / "alone")}
    alone = fit(config.model_copy(update=update))
    bits = [one.bits_per_dim, alone.bits_per_dim, said["whole"][2], said["cut"][2]]
    assert bits == pytest.approx([bits[0]] * 4, rel=1e-5)
    wanted = rows(folder / "one")
    assert [row["step"] for row in wanted] == [row["step"] for row in rows(folder / "whole")]
    for other in ("whole", "alone/half", "elsewhere/half"):
        for row, reference in zip(rows(folder / other), wanted, strict=True):
            for key in ("objective", "nll", "bits_per_dim", "lr", "beta", "grad_norm"):
                assert row[key] == pytest.approx(reference[key], rel=1e-4), (other, key)
    tensors = [
        load_file(checkpoint.latest_checkpoint(folder / run) / "ema.safetensors")
        for run in ("one", "whole", "alone/half", "elsewhere/half")
    ]
    assert max(distance(each, tensors[0]) for each in tensors) < 1e-3


def test_the_first_process_alone_writes(runs):
    folder, _, _ = runs
    assert len(rows(folder / "whole")) == len({row["step"] for row in rows(folder / "whole")})
    for scenario_name in ("halves", "rests"):
        printed = sorted((folder / f"logs-{scenario_name}").rglob("1/std*.log"))
        assert printed
        text = "".join(file.read_text() for file in printed)
        assert "images/s" not in text
        assert "hvae" not in text


# -- The command line ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line_of_two_processes(config_file, tmp_path):
    command = ("-m", "hvae", "train", str(config_file), "train.images=8", "--json")
    code, out, errors = torchrun(tmp_path / "logs", *command)
    assert code == 0, errors
    assert json.loads(out[0])["images"] == 8
    assert out[1] == ""
    assert "8/8 images" in errors[0]
    assert "images" not in errors[1]


@pytest.mark.slow
def test_a_bad_image_ends_both_with_one_line(config_file, tmp_path):
    """It lies in the second process's part of a batch; the first one tells."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    source = open_source(load_config(config_file, (f"data.source={folder}",)).data, "train")
    assert len(source) >= 8
    wanted = next(iter(Loader(source, batch=4, seed=load_seed(config_file)).batches(4)))
    name = file_of(source, wanted.images[3], folder)
    name.write_bytes(name.read_bytes()[:-30])
    command = ("-m", "hvae", "train", str(config_file), f"data.source={folder}")
    code, out, errors = torchrun(tmp_path / "logs", *command)
    assert code == 1  # torchrun's own; those of the processes are in what it prints
    assert out == ["", ""]
    assert "Traceback" not in errors[0] + errors[1]
    assert errors[0].count("hvae: ") == 1
    assert "hvae: process 1 of 2: " in errors[0]
    assert str(name) in errors[0]
    assert "hvae" not in errors[1]


def load_seed(config_file: Path) -> int:
    return derive_seed(load_config(config_file).seed, "data")


def file_of(source: Any, image: Tensor, folder: Path) -> Path:
    """The file that holds an image."""
    for file in sorted(folder.iterdir()):
        with Image.open(file) as opened:
            if np.array_equal(np.asarray(opened), image[0].numpy()):
                return file
    raise AssertionError("no file holds it")
