"""Progress: lines where there is no terminal, a bar where there is one, on stderr both."""

import io

from rich.console import Console

from hvae.training.progress import TrainingProgress


def test_without_a_terminal_a_report_is_a_line_with_an_eta(capsys):
    with TrainingProgress(2000, 0) as progress:
        progress.update(500)
        progress.started_at -= 10
        progress.report(1000, "3.2 bits/dim")
        progress.say("saved")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["1,000/2,000 images  3.2 bits/dim  ETA 0:00:10", "saved"]


def test_the_eta_counts_from_where_a_run_was_resumed(capsys):
    with TrainingProgress(3000, 1000) as progress:
        progress.started_at -= 60
        progress.report(1500, "")
    assert "ETA 0:03:00" in capsys.readouterr().err


def test_no_images_yet_is_no_error(capsys):
    with TrainingProgress(10, 0) as progress:
        progress.report(0, "waiting")
    assert "0/10 images  waiting" in capsys.readouterr().err


def test_on_a_terminal_a_bar_shows_images_and_figures():
    progress = TrainingProgress(2000, 0)
    screen = io.StringIO()
    progress.console = Console(file=screen, force_terminal=True, width=100)
    with progress:
        progress.update(500)
        progress.report(1000, "3.2 bits/dim")
    assert "1,000 / 2,000 images" in screen.getvalue()
    assert "3.2 bits/dim" in screen.getvalue()
    assert "ETA" not in screen.getvalue()
