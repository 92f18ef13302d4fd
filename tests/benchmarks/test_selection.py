import pytest

from benchmarks.selection import Case, simulate


@pytest.mark.parametrize(
    ("case", "repeats"),
    [
        (Case("finalists", 60, 3, 0.0), 150),
        (Case("finalists", 60, 3, 1.0), 150),
        (Case("finalists", 20, 10, 0.0), 150),
        (Case("finalists", 20, 5, 0.5, "shared"), 150),
        (Case("finalists", 60, 3, 1.0, "uneven"), 150),
        (Case("grid", 40, 3, 0.0), 60),
        (Case("doubling", 6, 5, 0.0), 8),
    ],
    ids=str,
)
def test_the_interval_of_whichever_won_holds_and_is_not_twice_the_oracles(case, repeats):
    outcome = simulate(case, repeats)
    assert outcome.covered >= 0.92
    assert outcome.width <= 2


def test_a_plain_interval_of_the_winner_does_not_hold_and_less_with_the_seed_that_chose():
    outcome = simulate(Case("finalists", 60, 3, 0.0), 300)
    assert outcome.plain < 0.92
    assert outcome.screened < outcome.plain - 0.1
