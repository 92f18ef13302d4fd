"""The benchmark of early stopping drives its peers as they are, and its figures are those of a grid done by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.objectives import Objective, objectives
from benchmarks import early_stopping
from benchmarks.curves import Curve, replay, shuffled
from benchmarks.early_stopping import (
    BUDGETS,
    Contender,
    EarlyStoppingBenchmark,
    Grid,
    at_random,
    interval,
    main,
    measure,
    ours,
    peer,
)
from benchmarks.peer_stopping import Stops, moasha, ray_asha
from sweeps.engine.scheduler import Rule
from vqcore.config import ConfigError

EPOCHS = 4
MSE = Objective("mse")


def curve(key: str, size: int, mse: float, perplexity: float) -> Curve:
    """It has its last values from the start, but for a part that is halved each epoch and is the same for all."""
    epochs = tuple(
        {"mse": mse + 2.0**-epoch, "perplexity": perplexity, "bits": 64 * math.log2(perplexity), "seconds": 1.0}
        for epoch in range(1, EPOCHS)
    )
    return Curve(key, {"codebook_size": size}, (*epochs, {**epochs[-1], "mse": mse}))


def small_grid() -> Grid:
    return Grid([curve("a", 16, 0.4, 2), curve("b", 16, 0.5, 4), curve("c", 64, 0.2, 8), curve("d", 64, 0.3, 8)])


def stopped(stops: Stops, values: list[float]) -> list[bool]:
    """What becomes of trials that come one after the other with these MSEs at their first epoch."""
    return [stops(str(number), 1, {"mse": value, "perplexity": 2.0}) for number, value in enumerate(values)]


def test_ray_stops_what_is_worse_and_never_what_is_not_a_number() -> None:
    asha = ray_asha(MSE, epochs=EPOCHS, grace=1, reduction=2)
    assert stopped(asha, [0.2, 0.1, 0.3, math.nan]) == [False, False, True, False]


def test_ray_takes_the_direction() -> None:
    asha = ray_asha(Objective("perplexity", "max"), epochs=EPOCHS, grace=1, reduction=2)
    assert not asha("a", 1, {"perplexity": 2.0})
    assert not asha("b", 1, {"perplexity": 4.0})
    assert asha("c", 1, {"perplexity": 1.0})


def test_moasha_stops_what_is_dominated_and_leaves_numpys_stream_alone() -> None:
    pytest.importorskip("syne_tune")
    np.random.seed(7)
    expected = np.random.RandomState(7).random()
    asha = moasha(objectives(["mse", "perplexity"]), epochs=EPOCHS, grace=1, reduction=2)
    assert not asha("a", 1, {"mse": 0.1, "perplexity": 8.0})
    asha("b", 1, {"mse": 0.2, "perplexity": 4.0})
    assert asha("c", 1, {"mse": 0.3, "perplexity": 2.0})
    assert not asha("d", 1, {"mse": 0.4, "perplexity": 16.0})
    assert np.random.random() == expected


def test_what_is_found_counts_by_the_best_at_each_size_and_by_the_area() -> None:
    grid = small_grid()
    assert grid.epochs == 16
    assert grid.kept("abcd").regret == pytest.approx(0)
    assert grid.kept("bc").regret == pytest.approx((0.5 / 0.4 - 1) / 2)
    assert grid.kept([]).regret == pytest.approx((0.5 / 0.4 - 1 + 0.3 / 0.2 - 1) / 2)  # the worst of each size
    # MSE against perplexity, up to (0.5, 1): c alone spans 0.3 x 7 and dominates all
    assert grid.kept("c").spread == pytest.approx(1)
    assert grid.kept("a").spread == pytest.approx(0.1 * 1 / (0.3 * 7))
    # against log2 perplexity, up to (0.5, 7): c spans 0.3 x 4, and a adds 0.1 x 2
    assert grid.kept("c").rate == pytest.approx(1.2 / 1.4)
    # against log2 K, up to (0.5, 7): a spans 0.1 x 3, and c adds 0.2 x 1 below
    assert grid.kept("a").fixed_rate == pytest.approx(0.3 / 0.5)


def test_a_peer_keeps_its_slot_and_spends_no_more_than_it_may() -> None:
    curves = list(small_grid().curves.values())
    jobs = shuffled(curves, 0)
    never = peer(lambda epochs: lambda key, epoch, metrics: False)
    steps = replay(curves, never(jobs, 2, None))
    assert [step.complete for step in steps].count(True) == 4
    assert {step.key for step in steps[:2]} == {job.key for job in jobs[:2]}
    assert replay(curves, never(jobs, 2, 6))[-1].spent == 6
    at_once = peer(lambda epochs: lambda key, epoch, metrics: True)
    assert replay(curves, at_once(jobs, 2, None))[-1].spent == 4


def test_the_interval_is_of_order_statistics() -> None:
    assert interval(list(range(1, 51))) == {"median": 25.5, "low": 18, "high": 33}  # the tables of the sign test
    assert interval([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}  # too few for 95 %: all


def test_rules_and_random_are_compared_at_equal_epochs_and_in_every_budget() -> None:
    grid = small_grid()
    runs = {"ours": Contender(ours(Rule(objectives(["mse"]), grace_period=1, reduction_factor=2)))}
    replayed = measure(grid, EarlyStoppingBenchmark(shuffles=3, slots=1), runs)
    ended = replayed["ended"]["ours"]
    assert ended["rule"]["regret"]["median"] == 0
    assert ended["random"]["epochs"] == ended["rule"]["epochs"]
    assert set(replayed["budgets"]) == {"ours", "random"}
    for share in BUDGETS:
        for at in replayed["budgets"].values():
            assert at[f"{share:g}"]["epochs"]["high"] <= share


def test_the_file_holds_all_and_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(early_stopping, "recorded", lambda path: tuple(small_grid().curves.values()))
    monkeypatch.setattr(early_stopping, "installed", lambda package: False)
    out = tmp_path / "new" / "early_stopping.json"
    main(EarlyStoppingBenchmark(shuffles=2, out=out))
    told = json.loads(out.read_text())
    assert {"ended", "budgets", "grid", "settings", "measured", "load_at_start", "provenance"} == told.keys()
    assert told["grid"] == {"trials": 4, "epochs": 16}
    assert not any("Syne" in name for name in told["ended"])
    assert "syne-tune: skipped" in capsys.readouterr().out


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        main(EarlyStoppingBenchmark(grid=tmp_path, shuffles=0, slots=0))
    assert all(words in str(error.value) for words in ("shuffles = 0", "slots = 0", str(tmp_path)))


def test_random_search_trains_to_the_end_in_the_order_given() -> None:
    curves = list(small_grid().curves.values())
    jobs = shuffled(curves, 1)
    steps = replay(curves, at_random(jobs, 1, 9))
    assert [step.key for step in steps if step.complete] == [job.key for job in jobs[:2]]
    assert steps[-1].spent == 9
