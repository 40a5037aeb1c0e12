"""The run folder: its lock, its record, and who may go on with it."""

import pytest

from hvae import checkpoint
from hvae.errors import UserError
from hvae.training import load_config
from hvae.training.run_folder import RunFolder, as_json


def save(folder: RunFolder, config: dict) -> None:
    checkpoint.save(folder.path, 3, {}, {"config": config}, keep_last=1)


def test_the_lock_is_let_go_at_the_end_and_after_errors(tiny):
    folder = RunFolder(tiny())
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with folder.locked():
        with pytest.raises(UserError, match="another process trains in this run folder"):
            RunFolder(tiny()).locked().__enter__()
        with RunFolder(tiny("name=other")).locked():
            pass
    with folder.locked():
        pass


def test_the_record_reads_back_as_the_configuration(tiny):
    config = tiny("train.lr=0.02", "model.widths={4: 8}")
    folder = RunFolder(config)
    with folder.locked():
        assert folder.begin(config) is None
    assert load_config(folder.path / "config.yaml") == config


def test_the_same_configuration_goes_on_from_the_latest_checkpoint(tiny):
    config = tiny()
    folder = RunFolder(config)
    with folder.locked():
        folder.begin(config)
        save(folder, as_json(config))
        assert folder.begin(config) == folder.path / "checkpoints" / "step-3"


def test_a_run_from_before_a_key_existed_goes_on_with_its_default(tiny):
    config, folder = tiny(), RunFolder(tiny())
    with folder.locked():
        folder.begin(config)
        older = as_json(config)
        del older["train"]["guard"]["clip_norm"], older["model"]["likelihood"]["input_mean"]
        save(folder, older)
        assert folder.begin(config) is not None
        with pytest.raises(UserError, match=r"model\.likelihood\.input_mean=127\.5 \(now 100\.0\)"):
            folder.begin(tiny("model.likelihood.input_mean=100.0"))


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=5", "seed=0 (now 5)"),
        ("data.batch=8", "data.batch=4 (now 8)"),
        ("data.flip=true", "data.flip=False (now True)"),
        ("model.likelihood.bits=5", "model.likelihood.bits=8 (now 5)"),
        ("train.objective.beta=0.5", "train.objective.beta=1.0 (now 0.5)"),
        ("train.betas=[0.9,0.99]", "train.betas=None (now [0.9, 0.99])"),
    ],
)
def test_a_value_that_shapes_the_weights_may_not_change(tiny, override, difference):
    folder = RunFolder(tiny())
    with folder.locked():
        folder.begin(tiny())
        save(folder, as_json(tiny()))
        recorded = (folder.path / "config.yaml").read_text()
        with pytest.raises(UserError) as caught:
            folder.begin(tiny(override))
    assert str(caught.value) == (
        f"{folder.path}: this run was started with {difference}. "
        "Use the same values to resume it, or name=... for a new run"
    )
    assert (folder.path / "config.yaml").read_text() == recorded


def test_a_key_of_another_version_is_a_difference(tiny):
    folder = RunFolder(tiny())
    with folder.locked():
        folder.begin(tiny())
        saved = as_json(tiny())
        saved["model"]["dropout"] = 0.1
        save(folder, saved)
        with pytest.raises(UserError, match=r"model\.dropout=0\.1 \(now None\)"):
            folder.begin(tiny())


@pytest.mark.parametrize(
    "override",
    [
        "train.images=60",
        "train.keep_last=5",
        "train.log_every=1",
        "train.sample_every=1",
        "train.checkpoint_every=1",
        "train.eval_every=1",
        "data.workers=2",
        "eval.batch=2",
        "eval.importance=4",
    ],
)
def test_a_length_or_an_interval_may_change_and_is_recorded(tiny, override):
    folder = RunFolder(tiny())
    with folder.locked():
        folder.begin(tiny())
        save(folder, as_json(tiny()))
        assert folder.begin(tiny(override)) is not None
    assert load_config(folder.path / "config.yaml") == tiny(override)
