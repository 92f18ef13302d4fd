"""The benchmark of early stopping drives its peers as they are, and judges no grid by what was chosen on it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.objectives import Objective
from benchmarks import early_stopping, early_stopping_contenders, early_stopping_replays
from benchmarks.curves import Curve, replay, shuffled
from benchmarks.early_stopping import EarlyStoppingBenchmark, below_random, estimates, judge, main, summary
from benchmarks.early_stopping_contenders import OURS, RANDOM, AtRandom, Build, Ours, ParetoAsha, Peer, contenders
from benchmarks.early_stopping_grids import QUESTIONS, SPREAD, Grid, Part, floors
from benchmarks.early_stopping_replays import SHARES, Outcome, Replays, Task
from benchmarks.peer_stopping import Stops, hyperband, median_stopping, moasha, ray_asha
from vqcore.config import ConfigError

EPOCHS = 4
MSE = [Objective("mse")]
SIZES, PLANE, RATE = QUESTIONS.values()


def curve(key: str, size: int, mse: float, perplexity: int, seed: int = 0) -> Curve:
    """It has its last values from the start, but for a part that is halved each epoch and is the same for all."""
    epochs = tuple(
        {"mse": mse + 2.0**-epoch, "perplexity": float(perplexity), "bits": 64 * math.log2(perplexity), "seconds": 1.0}
        for epoch in range(1, EPOCHS)
    )
    return Curve(key, {"codebook_size": size, "seed": seed}, (*epochs, {**epochs[-1], "mse": mse}))


CURVES = [curve("a", 16, 0.4, 2), curve("b", 16, 0.5, 4), curve("c", 64, 0.2, 8), curve("d", 64, 0.3, 8)]


def stopped(stops: Stops, values: Sequence[float], epoch: int = 1) -> list[bool]:
    """What becomes of trials that come one after the other with these MSEs at this epoch."""
    return [stops(str(number), epoch, {"mse": value, "perplexity": 2.0}) for number, value in enumerate(values)]


def test_ray_stops_what_is_worse_and_never_what_is_not_a_number() -> None:
    asha = ray_asha(MSE, epochs=EPOCHS, grace=1, reduction=2)
    assert stopped(asha, [0.2, 0.1, 0.3, math.nan]) == [False, False, True, False]


def test_ray_takes_the_direction() -> None:
    asha = ray_asha([Objective("perplexity", "max")], epochs=EPOCHS, grace=1, reduction=2)
    assert [asha(key, 1, {"perplexity": value}) for key, value in (("a", 2.0), ("b", 4.0), ("c", 1.0))] == [0, 0, 1]


def test_brackets_of_hyperband_differ_in_their_grace_and_repeat() -> None:
    worse_each_time = [float(number) for number in range(100)]
    first, again = (stopped(hyperband(MSE, epochs=9, grace=1, reduction=3), worse_each_time) for _ in range(2))
    assert first == again
    assert all(stopped(ray_asha(MSE, epochs=9, grace=1, reduction=3), worse_each_time)[1:])
    assert 50 < sum(first) < 90  # e^2 to e^1 to 1 in the bracket that judges at epoch 1, in 3, in 9


def test_the_median_rule_stops_what_was_never_as_good_as_the_median_of_three_others() -> None:
    rule = median_stopping(MSE, epochs=EPOCHS, grace=1)
    assert stopped(rule, [0.1, 0.2, 0.3, 0.25, 0.15]) == [False, False, False, True, False]
    late = median_stopping(MSE, epochs=EPOCHS, grace=2)
    assert not any(stopped(late, [0.1, 0.2, 0.3, 0.9]))
    assert stopped(late, [0.1, 0.2, 0.3, 0.9], epoch=2) == [False, False, False, True]


@pytest.mark.parametrize("peer", [ray_asha, moasha])
def test_numpys_stream_is_left_alone(peer: Callable[..., Stops]) -> None:
    if peer is moasha:
        pytest.importorskip("syne_tune")
    np.random.seed(7)
    stopped(peer(SPREAD, epochs=EPOCHS, grace=1, reduction=2), [0.2, 0.1])
    assert np.random.random() == np.random.RandomState(7).random()


def test_moasha_stops_what_is_dominated() -> None:
    pytest.importorskip("syne_tune")
    asha = moasha(SPREAD, epochs=EPOCHS, grace=1, reduction=2)
    assert not asha("a", 1, {"mse": 0.1, "perplexity": 8.0})
    asha("b", 1, {"mse": 0.2, "perplexity": 4.0})
    assert asha("c", 1, {"mse": 0.3, "perplexity": 2.0})
    assert not asha("d", 1, {"mse": 0.4, "perplexity": 16.0})


def test_what_is_left_is_by_the_best_at_each_size_and_by_the_area() -> None:
    part = Part(CURVES)
    assert part.epochs == 16
    assert part.left("regret", "abcd") == pytest.approx(0)
    assert part.left("regret", "bc") == pytest.approx((0.5 / 0.4 - 1) / 2)
    assert part.left("regret", "") == pytest.approx((0.5 / 0.4 - 1 + 0.3 / 0.2 - 1) / 2)  # the worst of each size
    # MSE against perplexity, up to (0.5, 1): c alone spans 0.3 x 7 and dominates all
    assert part.left("spread", "c") == pytest.approx(0)
    assert part.left("spread", "a") == pytest.approx(1 - 0.1 * 1 / (0.3 * 7))
    # against log2 perplexity, up to (0.5, 7): c spans 0.3 x 4, and a adds 0.1 x 2
    assert part.left("rate", "c") == pytest.approx(0.2 / 1.4)


def test_the_seeds_of_a_grid_are_grids_of_their_own_and_their_noise_is_the_usual_one() -> None:
    ratios = {0: 1.0, 1: math.exp(0.2)}  # sd of the logs: 0.2 / sqrt(2) at one size, none at the other
    curves = [curve(f"{seed}", 16, 0.2 * ratio, 2, seed) for seed, ratio in ratios.items()]
    curves += [curve(f"same{seed}", 64, 0.1, 2, seed) for seed in ratios]
    seeded, single = Grid.of("seeded", curves), Grid.of("single", CURVES)
    assert [set(seeded.part(order).curves) for order in range(3)] == [{"0", "same0"}, {"1", "same1"}, {"0", "same0"}]
    assert seeded.noise == pytest.approx(math.sqrt(0.02) / 2)  # the median of two
    assert len(single.parts) == 1
    assert floors([seeded, single], [seeded, single]) == dict.fromkeys(["seeded", "single"], seeded.noise)
    assert floors([single], [single]) == {"single": 0}


def test_found_is_what_was_complete_by_a_share_of_the_epochs() -> None:
    (outcome,) = Task(Grid.of("grid", CURVES), AtRandom(), orders=1, slots=1).run()
    jobs = [job.key for job in shuffled(CURVES, 0)]
    by_then = [Part(CURVES).left("rate", jobs[: int(share * len(jobs))]) for share in (*SHARES, 1.0)]
    assert outcome.left["rate"] == by_then
    assert outcome.spent == 1


@pytest.mark.parametrize("build", [Ours(PLANE), ParetoAsha(PLANE, 0.0, 2)])
def test_ours_trains_all_at_last(build: Build) -> None:
    (outcome,) = Task(Grid.of("grid", CURVES), build, orders=1, slots=2).run()
    assert outcome.spent == 1
    assert {figure: left[-1] for figure, left in outcome.left.items()} == {"regret": 0, "spread": 0, "rate": 0}


def test_a_peer_keeps_its_slot_until_it_is_stopped() -> None:
    jobs = shuffled(CURVES, 0)
    never = Peer(lambda aims, epochs, grace: lambda key, epoch, metrics: False, PLANE.objectives)
    steps = replay(CURVES, never(jobs, 2))
    assert all(step.complete for step in steps)
    assert {step.key for step in steps[:2]} == {job.key for job in jobs[:2]}
    at_once = Peer(lambda aims, epochs, grace: lambda key, epoch, metrics: True, PLANE.objectives)
    assert replay(CURVES, at_once(jobs, 2))[-1].spent == 4


Left = Callable[[str, Build], float]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Callable[[Left], Replays]:
    """Replays that left what they are told to, by grid and contender."""
    grids = [Grid.of(name, CURVES) for name in "xyz"]

    def made(left: Left) -> Replays:
        def run(tasks: Sequence[Task]) -> list[list[Outcome]]:
            told = [[left(task.grid.name, task.build)] * (len(SHARES) + 1) for task in tasks]
            return [[Outcome(1.0, {"regret": one, "spread": one, "rate": one})] for one in told]

        monkeypatch.setattr(early_stopping_replays, "in_processes", run)
        return Replays(grids, orders=1, slots=1)

    return made


def test_the_setting_on_a_grid_is_chosen_on_the_others(replays: Callable[[Left], Replays]) -> None:
    good = next(iter(contenders(PLANE)["Pareto-ASHA"].items()))

    def left(own: float) -> Left:
        at: Mapping[Build, float] = {good[1]: 0.1, AtRandom(): 0.4}
        return lambda grid, build: own * (build == good[1]) if grid == "x" else at.get(build, 0.2)

    chosen = [judge(replays(left(own)), PLANE, "x", "xyz")["x"]["Pareto-ASHA"] for own in (0.0, 1.0)]
    assert [label for label, _ in chosen] == [good[0], good[0]]
    assert [float(there.mean()) for _, there in chosen] == [0.0, 1.0]
    assert judge(replays(left(1.0)), PLANE, "x", "yz")["x"]["Pareto-ASHA"][0] == good[0]  # as with --grid
    assert judge(replays(left(1.0)), PLANE, "y", "xy")["y"]["Pareto-ASHA"][0] != good[0]  # x would choose another


def at_all_shares(*by_order: float) -> tuple[str, early_stopping.Floats]:
    return "", np.repeat(np.array(by_order)[:, None], len(SHARES), axis=1)


def test_worse_than_random_is_more_than_the_error_and_the_floor() -> None:
    judged = {
        "worse": {OURS: at_all_shares(0.3, 0.4), RANDOM: at_all_shares(0.2, 0.3)},
        "unsure": {OURS: at_all_shares(0.3, 0.1), RANDOM: at_all_shares(0.1, 0.2)},  # 0.05, standard error 0.15
    }
    everywhere = [("worse", share) for share in SHARES]
    floor = {"worse": 0.2, "unsure": 0.0}
    assert below_random(PLANE, judged, floor) == everywhere  # no area is a matter of a seed's luck
    assert below_random(SIZES, judged, floor) == []
    assert below_random(SIZES, judged, {**floor, "worse": 0.05}) == everywhere


def test_the_summary_names_the_worst_grid_and_knows_no_regret_below_the_floor() -> None:
    judged = {
        "x": {OURS: at_all_shares(0.1), RANDOM: at_all_shares(0.4)},
        "y": {OURS: at_all_shares(0.01), RANDOM: at_all_shares(0.02)},
    }
    floor = {"x": 0.2, "y": 0.05}
    area = {"ratio": pytest.approx(0.375), "worst": "y", "worst_ratio": pytest.approx(0.5)}
    assert summary(PLANE, judged, floor)[OURS]["0.25"] == area
    regret = {"ratio": pytest.approx(math.sqrt(0.5)), "worst": "y", "worst_ratio": pytest.approx(1)}
    assert summary(SIZES, judged, floor)[OURS]["0.25"] == regret


def test_intervals_are_students() -> None:
    at = estimates(at_all_shares(1.0, 2.0, 3.0)[1])["0.6"]
    assert at == {"mean": 2.0, "low": pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4), "high": pytest.approx(4.4841, 1e-4)}
    assert estimates(at_all_shares(1.0)[1])["0.25"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def write_grid(path: Path, curves: Sequence[Curve]) -> Path:
    rows = [
        {"trial": one.key, "epoch": number, **one.config, **metrics}
        for one in curves
        for number, metrics in enumerate(one.epochs, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small recorded grids, replayed in this process, without Syne Tune."""
    for name in ("first", "second"):
        write_grid(tmp_path / f"{name}.parquet", CURVES)
    monkeypatch.setattr(early_stopping, "RECORDED", tmp_path)
    monkeypatch.setattr(early_stopping_replays, "in_processes", lambda tasks: [task.run() for task in tasks])
    for module in (early_stopping, early_stopping_contenders):
        monkeypatch.setattr(module, "installed", lambda package: False)
    return tmp_path


def test_the_file_holds_all_and_where_it_comes_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "new" / "early_stopping.json"
    main(EarlyStoppingBenchmark(orders=2, out=out))
    told = json.loads(out.read_text())
    results = {"questions", "summary", "unseen", "below_random", "own_ends", "grids"}
    assert results | {"settings", "measured", "load_at_start", "provenance"} == told.keys()
    assert told["grids"]["first"] == {"trials": 4, "seeds": 1, "epochs": 16, "floor": 0.0}
    for question in QUESTIONS:
        assert told["questions"][question].keys() == {"first", "second"} == told["own_ends"][question].keys()
        ours = told["questions"][question]["first"][OURS]
        assert ours["setting"] == "chance 0.05"
        assert list(ours["shares"]) == [f"{share:g}" for share in SHARES]
        assert "Syne Tune MOASHA" not in told["summary"][question]
        assert told["unseen"][question] == {}, "neither grid is one that the rule was not made on"
    shown = capsys.readouterr().out
    assert "syne-tune: skipped" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_a_given_grid_is_judged_alone_though_it_be_a_recorded_one(folder: Path) -> None:
    out = folder / "early_stopping.json"
    main(EarlyStoppingBenchmark(grid=folder / "first.parquet", orders=1, out=out))
    assert json.loads(out.read_text())["grids"].keys() == {"given"}
    others, judged = early_stopping.check(EarlyStoppingBenchmark(grid=folder / "first.parquet"))
    assert ([grid.name for grid in others], [grid.name for grid in judged]) == (["second"], ["given"])


def test_everything_wrong_is_told_at_once(folder: Path) -> None:
    (folder / "second.parquet").unlink()
    with pytest.raises(ConfigError) as error:
        main(EarlyStoppingBenchmark(orders=0, slots=0))
    assert all(words in str(error.value) for words in ("orders = 0", "slots = 0", "1 grids to choose"))
    with pytest.raises(ConfigError, match="nowhere"):
        main(EarlyStoppingBenchmark(grid=folder / "nowhere"))
