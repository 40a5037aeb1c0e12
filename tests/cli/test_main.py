"""The command line as a whole: fast help, exit codes, one line per expected error."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from hvae import __version__
from hvae.cli import main
from hvae.errors import HvaeError, TrainingError, UserError

VERBS = ["train", "sample", "reconstruct", "eval", "config", "info", "plot", "data inspect"]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_help_does_not_import_torch() -> None:
    script = (
        "import sys; sys.argv = ['hvae', '--help']\n"
        "from hvae.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
    )
    result = run_python("-c", script)
    assert result.returncode == 0, result.stderr
    assert "Train a model" in result.stdout


def test_the_package_is_a_command_with_exit_codes() -> None:
    result = run_python("-m", "hvae", "sample", "missing", "-o", "picture.jpg")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "hvae: --out: wanted a .png or .npy file, got picture.jpg\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example(verb: str) -> None:
    result = CliRunner().invoke(main.app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example:\n    hvae {verb} " in result.stdout or verb == "info"


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(main.app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_wrong_options_exit_with_2() -> None:
    result = CliRunner().invoke(main.app, ["sample", "run", "--nonsense"])
    assert result.exit_code == 2
    assert result.stderr.startswith("hvae: No such option: --nonsense")
    assert result.stderr.endswith(" sample --help\n")
    assert result.stderr.count("\n") == 1


def test_an_unknown_verb_shows_how_the_command_is_used() -> None:
    result = CliRunner().invoke(main.app, ["smaple"])
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (UserError("first line\nsecond line"), 2),
        (TrainingError("first line second line"), 1),
        (HvaeError("first line second line"), 1),
    ],
)
def test_expected_errors_are_one_line_and_an_exit_code(error: HvaeError, exit_code: int) -> None:
    result = _raising(error)
    assert result.exit_code == exit_code
    assert result.stderr == "hvae: first line second line\n"


def test_an_interrupt_exits_with_130() -> None:
    assert _raising(KeyboardInterrupt()).exit_code == 130


def test_unexpected_errors_keep_their_traceback() -> None:
    error = ZeroDivisionError("a bug")
    assert _raising(error).exception is error


def _raising(error: BaseException) -> typer.testing.Result:
    app = typer.Typer(cls=type(typer.main.get_command(main.app)), pretty_exceptions_enable=False)

    @app.command()
    def verb() -> None:
        raise error

    @app.callback()
    def _group() -> None:
        pass

    return CliRunner().invoke(app, ["verb"])
