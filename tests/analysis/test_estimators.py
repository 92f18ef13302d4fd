import pytest

from analysis.estimators import estimator_comparison, estimator_sentences, estimator_tables
from analysis.figures import tuning
from analysis.objectives import DEFAULT
from analysis.results import load
from analysis.tables import all_tables

SWEPT = ("estimator", "commitment_weight")
MSE, PERPLEXITY = DEFAULT


def duel(run, seeds=5, gap=0.003, **more):
    """Two estimators, four betas each with one seed, the best beta with ``seeds``; one trial of each stopped."""
    for estimator, worse in (("rotation", 0.0), ("ste", gap)):
        for i, beta in enumerate((0.1, 0.25, 1.0, 4.0)):
            for seed in range(seeds if i == 0 else 1):
                shared = (0, 2e-4, -1e-4, 3e-4, -2e-4)[seed]
                own = (0, 1e-5, -1e-5, 2e-5, 1e-5)[seed] * (1 if worse else -1)
                mse = 0.02 + worse + i / 1000 + shared + own
                run.trial(
                    [(mse, 300 - 20 * i - 5000 * worse + seed)] * 4,
                    commitment_weight=beta,
                    estimator=estimator,
                    seed=seed,
                )
        run.trial(
            [(0.09, 9)] * 2, "stopped", "rung 2: rank 9 of 9, kept 1 in 3", commitment_weight=9.0, estimator=estimator
        )
    for trial in more.get("further", ()):
        run.trial([(0.09, 9)] * 4, estimator="ste", **trial)
    return load(run.done())


@pytest.fixture(params=["random", None], ids=["search", "grid"])
def run(make_run, request):
    searched = {"sampler": request.param} if request.param else {}
    return make_run(swept=SWEPT, trials=20, **searched)


def test_each_is_compared_at_its_best_on_seeds_that_did_not_choose_it(run):
    made = estimator_comparison(duel(run))
    assert made is not None
    assert [one.best(MSE).label for one in made.tuned] == ["rotation, beta 0.1", "ste, beta 0.1"]
    assert all(set(one.fresh(MSE)) == {1, 2, 3, 4} for one in made.tuned)
    first = made.pairs[0]
    assert (first.one.name, first.other.name, first.test.tests) == ("rotation", "ste", 2)
    assert first.test.difference.mean == pytest.approx(-0.003, abs=1e-4)
    assert first.test.significant


def test_the_findings_show_who_is_better_and_what_each_was_given(run):
    lines = estimator_sentences(duel(run))
    assert lines[0] == (
        "Estimators by MSE, each at its best by seed 0, over its other seeds: rotation 0.02004 ± 0.00023; ste 0.02306 "
        "± 0.00025. Told apart (paired t tests, Holm's correction): rotation is lower than ste by 0.003015 (n = 4)."
    )
    assert lines[2] == "Budget to tune each: rotation 5 trials, 18 epochs; ste 5 trials, 18 epochs."


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_an_order_and_no_claim(run, seeds):
    lines = estimator_sentences(duel(run, seeds))
    assert lines[0].endswith("Too few other seeds: an order, not a claim.")
    table = estimator_tables(load(run.folder))[1]
    assert {row[-1] for row in table.rows} == {"too few seeds"}


def test_unequal_budgets_are_not_fair_and_that_is_said(run):
    results = duel(run, further=({"commitment_weight": 5.0}, {"commitment_weight": 6.0}))
    assert estimator_sentences(results)[-1].endswith(
        "ste 7 trials, 26 epochs. These differ by more than 10 % in trials and epochs: the comparison is not fair."
    )


def test_a_stopped_trial_was_tried_and_is_worse_than_all(run):
    made = estimator_comparison(duel(run))
    assert made is not None
    curve = made.tuned[0].curve(MSE)
    assert len(curve.median) == 5
    # the third of 5 is the median of single trials; only the stopped one is infinitely bad
    assert curve.median[0] == pytest.approx(0.022)
    assert curve.expected[0] == pytest.approx((0.02 + 0.021 + 0.022 + 0.023 + 0.023) / 5)
    assert curve.expected[-1] == pytest.approx(0.02)


def test_tables_state_the_budget(run):
    results = duel(run)
    best, tests = estimator_tables(results)
    assert best.rows[0][:3] == ("MSE", "rotation", "beta 0.1")
    assert best.rows[0][4] == "4"
    assert [row[-1] for row in tests.rows] == ["yes", "yes"]
    assert best.notes[-1] == "Budget to tune each: rotation 5 trials, 18 epochs; ste 5 trials, 18 epochs."
    assert "estimators" in all_tables(results)


def test_a_sampler_that_learned_is_named(make_run):
    assert "The sampler (tpe) learned" in estimator_comparison(duel(make_run(swept=SWEPT, sampler="tpe"))).sampler_note
    assert not estimator_comparison(duel(make_run(swept=SWEPT, sampler="random"))).sampler_note


def test_the_picture_has_a_line_an_estimator_with_its_budget(run):
    figure = tuning(duel(run))
    assert figure is not None
    left, right = figure.axes
    assert left.get_legend_handles_labels()[1] == ["rotation: 5 trials, 18 epochs", "ste: 5 trials, 18 epochs"]
    assert left.get_ylabel() == "MSE on [-1, 1], whole test set"
    assert right.get_ylabel() == "perplexity, whole test set"


@pytest.mark.parametrize("betas", [(), (0.1, 0.25)])
def test_less_than_three_trials_are_no_tuning(run, betas):
    for estimator in ("rotation", "ste"):
        for beta in betas:
            run.seeds([0.02, 0.021, 0.022], [200, 201, 202], commitment_weight=beta, estimator=estimator)
    results = load(run.done())
    assert not any(made(results) for made in (estimator_comparison, estimator_sentences, estimator_tables, tuning))


def test_an_estimator_of_which_nothing_completed_is_not_compared(run):
    for beta in (0.1, 0.25, 1.0):
        run.seeds([0.02], [200], commitment_weight=beta, estimator="rotation")
        run.trial([(0.9, 2)], "diverged", "loss is not finite", commitment_weight=beta, estimator="ste")
    assert estimator_comparison(load(run.done())) is None
