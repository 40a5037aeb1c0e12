"""Smoke runs: two steps at the true size, without data, leaving nothing behind."""

from pathlib import Path

import pytest

from hvae.errors import UserError
from hvae.training import load_config
from hvae.training.config_file import list_configs
from hvae.training.smoke import smoke

SMALL = ["fashion_mini", "emoji_32"]
NAMES = [name for name, _ in list_configs()]


def test_a_smoke_run_takes_two_steps_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    result = smoke(tiny("data.source=nowhere", "data.size=[16,8]", "data.skip_bad=true"))
    assert (result.shape, result.groups, result.run) == ((1, 16, 8), 2, None)
    assert len(result.step_seconds) == 2
    assert all(seconds > 0 for seconds in result.step_seconds)
    assert result.memory_mib >= result.step_memory_mib > 0
    assert result.bits_per_dim > 0
    assert result.parameters > 1000
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.yaml", "temporary"}
    assert not list((tmp_path / "temporary").iterdir())


def test_a_smoke_run_is_kept_on_request_and_never_written_over(tiny, tmp_path):
    result = smoke(tiny("name=try"), keep=True)
    assert result.run == tmp_path / "try"
    sheets = {sheet.name for sheet in (result.run / "samples").iterdir()}
    assert sheets == {"samples-final.png", "reconstructions-final.png"}
    assert (result.run / "latest").is_file()
    with pytest.raises(UserError, match=r"try is there already; give the smoke run another name"):
        smoke(tiny("name=try"), keep=True)


def test_the_size_comes_from_the_data_where_the_configuration_leaves_it_out(tiny):
    ladder = ("model.encoder=32x1,32d2,16x1", "model.decoder=16x1,32m16")
    config = tiny("data.source=emoji-32", "data.size=null", "data.channels=null", *ladder)
    assert smoke(config).shape == (3, 32, 32)
    with pytest.raises(UserError, match=r"give data\.size=\.\.\. and data\.channels=\.\.\., or"):
        smoke(tiny("data.source=nowhere", "data.size=null"))


def test_a_conditional_model_is_told_the_classes_of_generated_images(tiny):
    assert smoke(tiny("model.condition.kind=class")).bits_per_dim > 0


@pytest.mark.parametrize("name", SMALL)
def test_small_shipped_configurations_run(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SMALL)))
def test_all_other_shipped_configurations_run(name):
    check(name)


def check(name: str) -> None:
    # Fashion-MNIST itself, whose size its configurations take from it, may not be installed.
    size = ("data.size=28", "data.channels=1") if name.startswith("fashion_mnist") else ()
    result = smoke(load_config(name, size))
    assert len(result.step_seconds) == 2
    assert 0 < result.bits_per_dim < 20


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("vdvae/")])
def test_every_configuration_states_its_cost_and_its_command(name):
    text = (Path(__file__).parents[2] / "configs" / f"{name}.yaml").read_text()
    header = text[: text.index("\ndata:")]
    assert f"#   hvae train configs/{name}.yaml" in header
    for claim in ("# hardware ", "# wall time ", "# score "):
        assert claim in header
    assert "TODO" not in header
