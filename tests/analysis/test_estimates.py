import pytest

from analysis.estimates import Estimate


def test_interval_of_three_seeds():
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.sd, estimate.n) == (2.0, 1.0, 3)
    assert estimate.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_a_surer_interval_is_wider():
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert estimate.interval_at(0.95) == estimate.interval
    assert estimate.interval_at(0.99) == pytest.approx((2 - 9.9248 / 3**0.5, 2 + 9.9248 / 3**0.5), abs=1e-4)
    assert Estimate.of([1.0]).interval_at(0.99) is None


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


def test_an_interval_stays_where_the_number_can_be() -> None:
    interval = Estimate.of([100.0, 200.0], floor=1.0).interval
    assert interval is not None
    assert interval[0] == 1.0
    assert interval[1] > 200
