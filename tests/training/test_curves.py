"""Points and figures of runs: done, going on, broken, and no runs at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hvae.errors import UserError
from hvae.training import figure
from hvae.training.curves import Alarm, read_curves
from hvae.training.figure import draw_curves

TRAIN = {"kind": "train", "step": 1, "images": 100, "bits_per_dim": 5.0, "kl": 3.0,
         "kl_per_group": [1.0, 2.0], "grad_norm": 0.5, "clip_norm": 1.0, "skipped": 0.0,
         "clipped": 0.0, "lr": 1e-3, "beta": 1.0, "images_per_second": 20.0,
         "memory_mib": 800.0}  # fmt: skip
EVAL = {"kind": "eval", "step": 2, "images": 200, "elbo_bits_per_dim": 4.5, "num_images": 60,
        "dataset": "shapes", "split": "test"}  # fmt: skip
ROLLBACK = {"kind": "alarm", "event": "rollback", "step": 1, "images": 100, "reason": "nan",
            "from_step": 3, "from_images": 300, "module": None, "found": None}  # fmt: skip


def log(folder: Path, *rows: dict[str, Any] | str) -> Path:
    folder.mkdir(exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def later(row: dict[str, Any], images: int, **values: Any) -> dict[str, Any]:
    return {**row, "images": images, "step": images // 100, **values}


def test_points_are_those_of_the_log(tmp_path):
    run = log(tmp_path / "a", TRAIN, later(TRAIN, 200, bits_per_dim=4.0), EVAL, ROLLBACK)
    curves = read_curves(run)
    assert (curves.name, curves.images, curves.num_groups) == ("a", [100, 200], 2)
    assert curves.train["bits_per_dim"] == [5.0, 4.0]
    assert curves.kl_per_group == [[1.0, 2.0]] * 2
    assert (curves.test_images, curves.test_bits_per_dim) == ([200], [4.5])
    assert (curves.test_set, curves.test_counts) == ("shapes test", [60])
    assert curves.resolutions is None
    assert curves.alarms == [Alarm(300, "rollback", "nan")]


def test_a_half_written_last_line_is_left_out(tmp_path):
    assert read_curves(log(tmp_path / "a", TRAIN, '{"kind": "tr')).images == [100]


@pytest.mark.parametrize("line", ["not json", "[1, 2]", '{"kind": "train"}', "3"])
def test_another_line_that_is_no_row_is_named(tmp_path, line):
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: this is no row of a run's log"):
        read_curves(log(tmp_path / "a", line, TRAIN))


def test_what_is_no_run_folder_is_an_error(tmp_path):
    for path, what in ((tmp_path, "has no metrics.jsonl"), (tmp_path / "b", "is not there")):
        with pytest.raises(UserError, match=f"{path} {what}; wanted a run folder such as"):
            read_curves(path)
    with pytest.raises(UserError, match="is empty: the run has not come to its first row"):
        read_curves(log(tmp_path / "c"))


NULLS = {name: None for name, value in TRAIN.items() if isinstance(value, float)}
RUNS: dict[str, list[dict[str, Any]]] = {
    "one row": [TRAIN],
    "only an evaluation": [EVAL],
    "only an alarm": [ROLLBACK],
    "a row of nulls": [later(TRAIN, 100, **NULLS, kl_per_group=[None, None])],
    "nulls between": [TRAIN, later(TRAIN, 200, **NULLS), later(TRAIN, 300), EVAL],
    "a row without means": [TRAIN, {k: v for k, v in later(TRAIN, 200).items()
                                    if k not in ("grad_norm", "kl_per_group")}],
    "a score that is null": [TRAIN, {**EVAL, "elbo_bits_per_dim": None}],
    "all zero": [later(TRAIN, 100 * i, grad_norm=0.0, kl_per_group=[0.0, 0.0], lr=0.0)
                 for i in (1, 2)],
    "many": [later(TRAIN, 100 * i, bits_per_dim=3 + 9 / i, skipped=float(i == 5))
             for i in range(1, 40)] + [EVAL, ROLLBACK],
}  # fmt: skip


@pytest.mark.parametrize("name", ["one row", "only an evaluation", "a row of nulls", "many"])
def test_any_log_can_be_drawn(tmp_path, name):
    pytest.importorskip("matplotlib")
    draw_curves([read_curves(log(tmp_path / "a", *RUNS[name]))], tmp_path / "out" / "curves.png")
    with Image.open(tmp_path / "out" / "curves.png") as drawn:
        assert drawn.width == 1320
        assert len(drawn.convert("RGB").getcolors(2**20) or []) > 50


def test_several_runs_share_a_figure(tmp_path):
    pytest.importorskip("matplotlib")
    runs = [read_curves(log(tmp_path / str(i), *rows)) for i, rows in enumerate(RUNS.values())]
    draw_curves(runs, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    for text in (
        "8: shapes test, 60 images: 4.500",
        "alarm",
        "steps were skipped",
        "0: KL (train)",
    ):
        assert text in drawn


def test_levels_are_named_where_the_configuration_is_known(tiny, tmp_path):
    pytest.importorskip("matplotlib")
    from hvae.training import fit

    run = fit(tiny("train.images=12")).run
    curves = read_curves(run)
    assert curves.resolutions == [4, 8]
    draw_curves([curves], tmp_path / "curves.svg")
    assert "resolution of the group" in (tmp_path / "curves.svg").read_text()


def test_a_missing_matplotlib_and_a_wrong_file_are_named(tmp_path, monkeypatch):
    curves = [read_curves(log(tmp_path / "a", TRAIN))]
    with pytest.raises(UserError, match=r"ends in \.png, \.pdf, \.svg, got .*curves\.gif"):
        draw_curves(curves, tmp_path / "curves.gif")
    monkeypatch.setattr(figure, "can_draw", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'hvae\[plot\]'"):
        draw_curves(curves, tmp_path / "curves.png")
