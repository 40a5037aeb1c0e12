"""Progress: lines where there is no terminal, a bar where there is one, on stderr both."""

import io

from rich.console import Console

from hvae.metrics.likelihood import LikelihoodResult
from hvae.training.progress import TrainingProgress, eval_line, train_line


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


def test_a_row_is_told_with_what_it_measures_throughput_and_memory():
    row = {"bits_per_dim": 3.25, "images_per_second": 120.4, "memory_mib": 812.3, "skips": 0}
    assert train_line(row) == "3.250 bits/dim (ELBO, train)  120 images/s  peak 812 MiB"
    slow = {**row, "images_per_second": 0.0976, "memory_mib": 14541.0, "skips": 3}
    assert train_line(slow) == (
        "3.250 bits/dim (ELBO, train)  0.0976 images/s  peak 14.2 GiB  3 skipped"
    )


def test_a_score_names_estimator_split_and_count():
    score = LikelihoodResult(
        elbo_bits_per_dim=3.5, elbo_stderr=None, importance_bits_per_dim=None, importance=1,
        nll=1.0, kl=1.0, kl_per_group=(1.0,), num_images=1500, num_dims=3, seed=0,
        estimators=("ELBO",), dataset="photos", split="test", sha256="",
    )  # fmt: skip
    assert eval_line(score, 24000) == (
        "test 3.5000 bits/dim (ELBO, photos test, 1,500 images) after 24,000 images"
    )
