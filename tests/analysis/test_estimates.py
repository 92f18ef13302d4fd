import pytest

from analysis.estimates import Estimate, t_quantile, told_apart


@pytest.mark.parametrize(
    ("freedom", "published"),
    [(1, 12.7062), (2, 4.3027), (9, 2.2622), (10, 2.2281), (11, 2.2010), (20, 2.0860), (120, 1.9799)],
)
def test_t_quantile_is_the_published_one(freedom, published):
    assert t_quantile(freedom) == pytest.approx(published, abs=2e-4)


def test_interval_of_three_seeds():
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.sd, estimate.n) == (2.0, 1.0, 3)
    assert estimate.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5))


def test_one_seed_has_no_spread():
    estimate = Estimate.of([0.0123])
    assert estimate.sd is None
    assert estimate.interval is None
    assert estimate.text == "0.01230"
    assert estimate.interval_text == "one seed"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0188, 0.0192, 0.0190], "0.01900 ± 0.00020"),
        ([250.0, 280.0, 260.0], "263 ± 15"),
        ([1000.0, 3000.0], "2000 ± 1414"),
        ([5.0, 5.0], "5.000 ± 0.000"),
        ([0.0, 0.0], "0.0 ± 0.0"),
    ],
)
def test_digits_follow_the_spread(values, text):
    assert Estimate.of(values).text == text


def test_told_apart_pairs_by_seed():
    base = {0: 1.0, 1: 5.0, 2: 9.0}
    assert told_apart(base, {seed: value + 0.5 + 0.01 * seed for seed, value in base.items()})
    assert not told_apart(base, {0: 5.1, 1: 8.0, 2: 1.2})


def test_never_told_apart_by_less_than_two_shared_seeds():
    assert not told_apart({0: 1.0}, {0: 100.0})
    assert not told_apart({0: 1.0, 1: 1.1}, {1: 100.0, 2: 99.0})
    assert not told_apart({0: 1.0}, {1: 2.0})


def test_equal_values_are_not_told_apart():
    assert not told_apart({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})


def test_an_interval_stays_where_the_number_can_be() -> None:
    interval = Estimate.of([100.0, 200.0], floor=1.0).interval
    assert interval is not None
    assert interval[0] == 1.0
    assert interval[1] > 200
