import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.student import t_p_value, t_quantile

freedoms = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("freedom", "published"),
    [(1, 12.7062), (2, 4.3027), (9, 2.2622), (10, 2.2281), (11, 2.2010), (20, 2.0860), (120, 1.9799)],
)
def test_t_quantile_is_the_published_one(freedom, published):
    assert t_quantile(freedom) == pytest.approx(published, abs=5.1e-5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 29, 100, 10_000])
def test_p_value_is_scipys(freedom):
    stats = pytest.importorskip("scipy.stats")
    for t in (0.0, 1e-4, 0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 3.0, 5.0, 12.0, 40.0, 1e3, 1e6):
        assert t_p_value(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)
        assert t_p_value(-t, freedom) == t_p_value(t, freedom)


@given(st.floats(0.001, 0.9999), freedoms)
def test_quantile_and_p_value_are_inverse(confidence, freedom):
    assert t_p_value(t_quantile(freedom, confidence), freedom) == pytest.approx(1 - confidence, rel=1e-9)


@pytest.mark.parametrize(("t", "p"), [(0.0, 1.0), (math.inf, 0.0), (-math.inf, 0.0), (1e200, 0.0)])
def test_p_value_at_the_ends(t, p):
    assert t_p_value(t, 3) == p


def test_one_degree_of_freedom_is_cauchys_in_the_far_tail():
    assert t_p_value(1e12, 1) == pytest.approx(2 / (math.pi * 1e12))


def test_p_value_of_no_number_is_none():
    assert math.isnan(t_p_value(math.nan, 3))
