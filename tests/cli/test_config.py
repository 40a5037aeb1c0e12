"""`hvae config` prints what a file means, the schema, and what is shipped."""

import json
from pathlib import Path

import yaml

from tests.cli.conftest import Cli


def test_the_resolved_file_is_complete_and_reads_back(
    cli: Cli, config: Path, tmp_path: Path
) -> None:
    printed = cli("config", config, "train.lr=5e-4").stdout
    values = yaml.safe_load(printed)
    assert (values["name"], values["train"]["lr"], values["seed"]) == ("tiny-run", 5e-4, 0)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(printed)
    assert cli("config", resolved).stdout == printed


def test_a_mistake_names_file_and_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("model:\n  levls: 3\n")
    result = cli("config", file)
    assert result.exit_code == 2
    assert result.stderr.startswith(f'hvae: {file}:2: unknown key "model.levls"')


def test_the_schema_is_json(cli: Cli) -> None:
    assert json.loads(cli("config", "--schema").stdout)["title"] == "hvae configuration"


def test_shipped_configurations_are_listed(cli: Cli) -> None:
    lines = cli("config", "--list").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    folder = Path(__file__).resolve().parents[2] / "configs"
    files = (file.relative_to(folder).with_suffix("") for file in folder.rglob("*.yaml"))
    assert sorted(names) == sorted(file.as_posix() for file in files)
    assert {"fashion_mini", "own_images_256", "vdvae/cifar10"} <= set(names)
    assert all(len(line.split()) > 1 for line in lines)


def test_nothing_to_print_is_wrong_use(cli: Cli) -> None:
    result = cli("config")
    assert (result.exit_code, result.stdout) == (2, "")
