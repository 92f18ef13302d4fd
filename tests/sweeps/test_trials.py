"""What comes next in a search, and next after a resume; trials only report, so that many take no time."""

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reporting import Reporting

from analysis.objectives import objectives
from sweeps.engine import inline
from sweeps.engine.scheduler import Halving
from sweeps.engine.stopping import EarlyStopping, FreezeThaw, Rule
from sweeps.engine.trials import replayed
from sweeps.run import run
from trainables.job import Report
from trainables.journal import Event, JournalReader, RunRecord, read
from trainables.runs import JOURNAL

Search = Callable[..., int]
AIMS = objectives(["mse", "perplexity"])
SEEDS = ("--trials", "6", "--early-stopping", "asha", "--reduction", "2", "--seeds", "4")


def events(journal: Path) -> list[Event]:
    return list(JournalReader(journal).new())


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_seed_that_does_not_complete_is_not_chosen_again_and_others_are(
    search: Search, out: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    class SecondSeedBreaks(Reporting):
        def step(self) -> Report:
            if self.job.config.training.seed != 1:
                return super().step()
            if status == "failed":
                raise RuntimeError("only with this seed")
            return Report(0, status="diverged", reason="not finite")

    monkeypatch.setattr(inline, "Trial", SecondSeedBreaks)
    assert search("--name", status, "--trials", "6", "--seeds", "4") == 0
    run = read(out / "pareto" / status / JOURNAL)
    seeds = defaultdict(dict)
    for trial in run.trials.values():
        seeds[str({**trial.config, "seed": None})][trial.config["seed"]] = trial.status
    more = [found for found in seeds.values() if len(found) > 1]
    assert more
    assert all(found[1] == status for found in more)
    assert {0: "completed", 1: status, 2: "completed", 3: "completed"} in more
    assert all(set(found) in ({0, 1}, {0, 1, 2, 3}) for found in more), "doubled as if it had completed"


def test_more_seeds_for_what_is_near_the_front_and_for_nothing_else(search: Search, out: Path) -> None:
    assert search("--name", "seeds", *SEEDS) == 0
    trials = read(out / "pareto" / "seeds" / JOURNAL).trials.values()
    seeds: dict[str, list[int]] = {}
    for trial in trials:
        config = {name: value for name, value in trial.config.items() if name != "seed"}
        if trial.status == "completed":
            seeds.setdefault(str(config), []).append(int(trial.config["seed"]))
    assert any(len(found) > 1 for found in seeds.values())
    assert all(sorted(found) == list(range(len(found))) for found in seeds.values()), "the same seeds for all"
    assert all(trial.config["seed"] == 0 for trial in trials if trial.status == "stopped")


def test_seeds_that_were_decided_on_stay_decided_when_half_of_them_are_known(search: Search, out: Path) -> None:
    assert search("--name", "settled", *SEEDS) == 0
    whole = out / "pareto" / "settled"
    lines = (whole / JOURNAL).read_bytes().splitlines(keepends=True)
    told = [event["event"] for event in events(whole / JOURNAL)]
    first = told.index("decided")
    for cut in (first, told.index("end", first)):
        part = out / "pareto" / f"settled{cut}"
        shutil.copytree(whole, part, symlinks=True)
        (part / JOURNAL).write_bytes(b"".join(lines[: cut + 1]))
        assert search("--resume", part.name) == 0
        assert decisions(read(part / JOURNAL)) == decisions(read(whole / JOURNAL))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cuts", "words"),
    [
        ("tpe", 24, "--trials 20"),
        ("nsga2", 12, "--sampler nsga2 --trials 64 --epochs 2"),  # half of them complete
        ("gp", 2, "--sampler gp --trials 26 --epochs 2"),
        ("budget", 24, "--trials 20 --budget 30"),
        ("mse", 12, "--trials 24 --objectives mse --epochs 8"),
        ("asha", 12, "--trials 20 --early-stopping asha"),
        ("collapse", 12, "--trials 16 --collapse-usage 0.6"),
    ],
)
def test_a_search_that_was_cut_anywhere_decides_what_it_would_have(
    search: Search, out: Path, name: str, cuts: int, words: str
) -> None:
    assert search("--name", f"{name}-whole", "--seeds", "1", *words.split()) == 0
    assert_alike_when_cut(out / "pareto" / f"{name}-whole", cuts, lambda run: search("--resume", run))


@pytest.mark.slow
@pytest.mark.usefixtures("search")
def test_a_grid_that_was_cut_anywhere_too(images: Path, out: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text("[space]\ndecay = [0.7, 0.8, 0.9, 0.99]\ncommitment_weight = [0.1, 0.2, 0.5, 1.0, 2.0, 4.0]\n")
    words = ["run", str(file), "--out", str(out), "--address", "inline"]
    grid = ["--data", str(images), "--sampler", "grid", "--objectives", "mse", "--epochs", "8", "--seeds", "1"]
    assert run([*words, *grid, "--name", "grid"]) == 0
    assert_alike_when_cut(out / "grid" / "grid", 24, lambda name: run([*words, "--resume", name]))


def assert_alike_when_cut(whole: Path, cuts: int, resume: Callable[[str], int]) -> None:
    lines, told = (whole / JOURNAL).read_bytes().splitlines(keepends=True), events(whole / JOURNAL)
    assert {"rung", "end"} <= {event["event"] for event in told}
    for place in range(len(told) - 1, len(told) // 3, -max(1, len(told) // (2 * cuts))):
        cut = whole.parent / f"{whole.name}-{place}"
        shutil.copytree(whole, cut, symlinks=True)
        (cut / JOURNAL).write_bytes(b"".join(lines[:place]))
        assert resume(cut.name) == 0
        assert decisions(read(cut / JOURNAL)) == decisions(read(whole / JOURNAL)), told[place - 1]


def decisions(run: RunRecord) -> dict[str, tuple[int, str, str, int]]:
    return {key: (trial.number, trial.status, trial.reason, trial.last_epoch) for key, trial in run.trials.items()}


@pytest.mark.parametrize("rule", [Halving(AIMS, 1, 2), FreezeThaw(AIMS)], ids=["asha", "freeze-thaw"])
def test_an_epoch_that_was_lost_and_comes_later_changes_nothing_at_the_rungs(
    search: Search, out: Path, rule: Rule
) -> None:
    name = f"mended-{type(rule).__name__}"
    assert search("--name", name, "--trials", "12", "--early-stopping", "asha", "--reduction", "2") == 0
    told = events(out / "pareto" / name / JOURNAL)
    several = 0
    for end in range(len(told)):
        run = fold(told[:end])
        several += any(trial.last_epoch > 1 and trial.waits for trial in run.trials.values())
        for lost in [event for event in told[:end] if event["event"] == "epoch"]:
            mended = fold([*(event for event in told[:end] if event is not lost), lost])
            assert standing(replayed(rule, mended, 4), mended) == standing(replayed(rule, run, 4), run)
    assert several, "trials that wait above the first rung were among them"


def fold(told: list[Event]) -> RunRecord:
    run = RunRecord()
    for event in told:
        run.apply(event)
    return run


def standing(stopping: EarlyStopping, run: RunRecord) -> tuple[Any, ...]:
    """Who waits and why, and who goes on next, until nobody may."""
    waiting = {key: stopping.reason(key) for key in run.trials if stopping.waits(key)}
    order = []
    while (key := stopping.choose(lambda: None, spare=True)) is not None:
        order.append(key)
        stopping.promote(key)
    return waiting, order
