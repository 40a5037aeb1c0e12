"""The rows of metrics.jsonl and the means in them."""

import json
import math

import pytest

from hvae.training import metrics_log
from hvae.training.metrics_log import Meter, MetricsLog


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def rows(log: MetricsLog) -> list[dict]:
    return [json.loads(line) for line in log.file.read_text().splitlines()]


def test_rows_are_appended_in_order(log):
    for step in range(3):
        log.append({"step": step, "kl": [0.5, step]})
    assert rows(log) == [{"step": step, "kl": [0.5, step]} for step in range(3)]


def test_what_json_does_not_know_becomes_null(log):
    log.append({"step": 1, "nll": math.nan, "kl": (1.0, math.inf), "deep": {"x": -math.inf}})
    assert rows(log) == [{"step": 1, "nll": None, "kl": [1.0, None], "deep": {"x": None}}]


def test_rows_past_a_checkpoint_are_cut(log):
    for step in (1, 2, 2, 3, 5):
        log.append({"step": step})
    log.cut_after(2)
    assert [row["step"] for row in rows(log)] == [1, 2, 2]
    log.append({"step": 3})
    assert [row["step"] for row in rows(log)] == [1, 2, 2, 3]


@pytest.mark.parametrize("rest", ['{"step": 2, "nl', '{"step": 2', "{", "\n"])
def test_a_line_that_a_kill_left_half_written_is_cut(log, rest):
    log.append({"step": 1})
    with log.file.open("a") as stream:
        stream.write(rest)
    log.cut_after(10)
    log.append({"step": 2})
    assert [row["step"] for row in rows(log)] == [1, 2]


def test_a_checkpoint_knows_how_many_rows_belong_to_it(log):
    for step in (1, 2, 2):
        log.append({"step": step})
    log.cut_after(2, 2)
    assert [row["step"] for row in rows(log)] == [1, 2]
    assert log.length == 2
    log.append({"step": 3})
    assert log.length == 3


@pytest.mark.parametrize("rest", ["[1]", "7", '"step"', '{"images": 3}', '{"step": "x"}', "\x00"])
def test_a_line_that_is_no_row_is_cut_wherever_it_stands(log, rest):
    log.file.write_text(f'{{"step": 1}}\n{rest}\n{{"step": 2}}\n')
    log.cut_after(2)
    assert rows(log) == [{"step": 1}, {"step": 2}]


def test_a_log_is_cut_in_place(log):
    """On a full disk there is no room for a second copy."""
    log.append({"step": 1})
    log.append({"step": 2})
    before = log.file.stat().st_ino
    log.cut_after(1)
    assert log.file.stat().st_ino == before


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_half(log, monkeypatch):
    log.append({"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.append({"step": 2})
    assert (rows(log), log.length) == ([{"step": 1}], 1)
    log.append({"step": 3})
    assert [row["step"] for row in rows(log)] == [1, 3]


def test_cutting_everything_leaves_an_empty_file(log):
    log.append({"step": 0})
    log.cut_after(-1)
    assert log.file.read_text() == ""


def test_there_may_be_nothing_to_cut(log):
    log.cut_after(3)
    assert not log.file.exists()


def test_means_are_over_the_steps_since_the_last():
    meter = Meter()
    meter.add(nll=1.0, kl=[1.0, 2.0])
    meter.add(nll=4.0, kl=[3.0, 6.0])
    assert meter.means() == {"nll": 2.5, "kl": [2.0, 4.0]}
    meter.add(nll=7.0, kl=[1.0, 1.0])
    assert meter.means() == {"nll": 7.0, "kl": [1.0, 1.0]}


def test_a_value_left_out_of_a_step_does_not_count():
    meter = Meter()
    meter.add(nll=1.0, skipped=0.0)
    meter.add(skipped=1.0)
    assert meter.means() == {"nll": 1.0, "skipped": 0.5}


def test_a_list_of_one_stays_a_list():
    meter = Meter()
    for _ in range(2):
        meter.add(kl=[2.0], nll=2.0)
    assert meter.means() == {"kl": [2.0], "nll": 2.0}


def test_a_meter_in_the_middle_survives_a_file():
    meter, restored = Meter(), Meter()
    meter.add(nll=0.1, kl=[0.2, 0.3])
    meter.add(nll=math.nan, kl=[0.7, math.inf])
    restored.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    for each in (meter, restored):
        each.add(nll=0.9, kl=[0.1, 0.1])
    assert str(restored.means()) == str(meter.means())
