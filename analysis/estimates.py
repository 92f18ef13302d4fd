"""What a few seeds say of a number: mean, spread, and a 95 % interval; and whether two configurations differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""The 97.5 % quantile of Student's t for 1 to 9 degrees of freedom."""


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 3 decimals: a table, then Cornish and Fisher's expansion."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation over seeds; none for one seed."""
    n: int
    floor: float = -math.inf
    """The least that the number can be."""

    @classmethod
    def of(cls, values: Sequence[float], floor: float = -math.inf) -> "Estimate":
        """The estimate from one value a seed; at least one."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values), floor)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean, no lower than what the number can be; none for one seed."""
        if self.sd is None:
            return None
        half = t_quantile(self.n - 1) * self.sd / math.sqrt(self.n)
        return max(self.mean - half, self.floor), self.mean + half

    @property
    def _decimals(self) -> int:
        # Two digits of the spread; without one, four digits of the mean.
        scale, digits = (self.sd, 2) if self.sd else (abs(self.mean), 4)
        return min(max(digits - 1 - math.floor(math.log10(scale)), 0), 7) if scale else 1

    def show(self, value: float) -> str:
        """``value`` with as many decimals as this estimate deserves."""
        return f"{value:.{self._decimals}f}"

    @property
    def text(self) -> str:
        """Mean ± sd, or the bare value of one seed."""
        return self.show(self.mean) + (f" ± {self.show(self.sd)}" if self.sd is not None else "")

    @property
    def interval_text(self) -> str:
        """The 95 % interval in brackets, or that there is none."""
        return "one seed" if self.interval is None else "[{}, {}]".format(*map(self.show, self.interval))


def told_apart(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether the paired 95 % t interval of the difference, over the seeds that both have, excludes zero.

    Paired, since equal seeds share initial weights and data order. Never from fewer than two shared seeds.
    """
    shared = sorted(one.keys() & other.keys())
    interval = Estimate.of([one[seed] - other[seed] for seed in shared]).interval if shared else None
    return interval is not None and not interval[0] <= 0 <= interval[1]
