"""Which checkpoint is the best one, and that it is kept through everything a run goes through."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hvae
from hvae import checkpoint
from hvae.training import Config, assessment, fit
from hvae.training.best import Best, Score
from hvae.training.recovery import Diverged
from hvae.training.step import Stepper

Tiny = Callable[..., Config]


def test_the_lower_score_is_the_better_one_and_the_first_of_equals() -> None:
    first, second = Score(1, 5.0, 8), Score(2, 4.0, 8)
    best = Best().after(first, final=False).after(second, final=False)
    assert best.now == second
    assert best.after(Score(3, 4.0, 8), final=True) == best
    assert best.after(Score(3, 3.0, 8), final=True).now == Score(3, 3.0, 8)


def test_scores_on_other_images_are_not_compared() -> None:
    best = Best(Score(1, 4.0, 8))
    assert best.after(Score(2, 9.0, 16), final=False).now == Score(2, 9.0, 16)
    assert best.after(Score(2, 1.0, 300), final=True) == best
    assert Best().after(Score(2, 1.0, 300), final=True).now == Score(2, 1.0, 300)


def test_scores_survive_a_file_where_their_checkpoints_do(tmp_path: Path) -> None:
    best = Best(Score(4, 4.0, 8), Score(2, 5.0, 8))
    state = json.loads(json.dumps({"best": best.state_dict()}))
    (tmp_path / "step-4").mkdir()
    assert Best.of(state, tmp_path) == Best(Score(4, 4.0, 8))
    (tmp_path / "step-2").mkdir()
    assert Best.of(state, tmp_path) == best
    assert Best.of({}, tmp_path) == Best()
    assert best.steps == {2, 4}


def names(run: Path) -> set[str]:
    return {folder.name for folder in (run / "checkpoints").iterdir()}


def plan(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Gives the evaluations on the way these ELBOs in bits/dim."""
    evaluate, left = assessment.evaluate, list(scores)

    def planned(*args: object, **options: object) -> object:
        score, row = evaluate(*args, **options)
        if left:
            object.__setattr__(score, "elbo_bits_per_dim", left.pop(0))
        return score, row

    monkeypatch.setattr(assessment, "evaluate", planned)


EVERY = (
    "train.keep_best=true",
    "train.eval_every=4",
    "train.checkpoint_every=12",
    "train.images=30",
)


def test_the_best_checkpoint_is_kept_and_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(monkeypatch, [9.0, 7.0, 8.0, 8.0, 8.0, 8.0, 8.0])
    fit(tiny(*EVERY))
    run = tmp_path / "tiny"
    assert names(run) == {"step-2", "step-6", "step-8"}  # 6 and 8 are the last two
    assert (run / "best").read_text() == "step-2\n"
    state = checkpoint.read_state(checkpoint.latest_checkpoint(run))
    assert state["best"]["now"] == {"step": 2, "bits_per_dim": 7.0, "num_images": 8}
    best, latest = hvae.load(run / "best").state_dict(), hvae.load(run).state_dict()
    assert not all(torch.equal(best[name], latest[name]) for name in best)


def test_keeping_the_best_changes_no_weight(tiny: Tiny, tmp_path: Path) -> None:
    fit(tiny("name=plain", *EVERY[1:]))
    fit(tiny(*EVERY))
    for stem in ("model", "ema", "optim"):
        plain, best = (
            load_file(tmp_path / name / "checkpoints" / "step-8" / f"{stem}.safetensors")
            for name in ("plain", "tiny")
        )
        assert all(torch.equal(plain[name], best[name]) for name in plain)
    assert not (tmp_path / "plain" / "best").exists()


def test_the_end_counts_where_it_is_scored_on_the_same_images(tiny: Tiny, tmp_path: Path) -> None:
    fit(tiny(*EVERY, "train.ema=0", "train.lr=0.02", "eval.images=null"))
    assert (tmp_path / "tiny" / "best").read_text() == "step-8\n"


def test_it_may_be_switched_on_and_off_on_the_way(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    fit(tiny(*EVERY))
    assert (run / "best").exists()
    fit(tiny(*EVERY[1:], "train.images=36"))
    assert not (run / "best").exists()
    fit(tiny(*EVERY, "train.images=44"))
    assert (run / "best").exists()


def test_a_run_that_goes_back_has_the_best_of_then(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 2 is the best until step 4; the run diverges in step 5 and goes back to step 3."""
    plan(monkeypatch, [9.0, 7.0, 8.0, 6.0, 8.0, 8.0, 8.0, 8.0])
    take = Stepper.step

    def step(self: Stepper, x: torch.Tensor, **given: int) -> object:
        report = take(self, x, **given)
        if self.steps == 5 and self.guard.rollbacks == 0:
            assert (tmp_path / "tiny" / "best").read_text() == "step-4\n"
            raise Diverged("planted")
        return report

    monkeypatch.setattr(Stepper, "step", step)
    settings = (*EVERY, "train.keep_last=1", "train.guard.max_above_uniform=null")
    result = fit(tiny(*settings))
    assert (result.rollbacks, math.isfinite(result.bits_per_dim or math.nan)) == (1, True)
    assert (tmp_path / "tiny" / "best").read_text() == "step-2\n"
    assert hvae.load(tmp_path / "tiny" / "best")
    assert names(tmp_path / "tiny") == {"step-2", "step-8"}
