"""What a few seeds say of a number: mean, spread, and a 95 % interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.student import t_quantile


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
        mean, n = fmean(values), len(values)
        # not statistics.stdev: exact fractions take most of the time where hundreds of pairs are compared
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return cls(mean, sd, n, floor)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean, no lower than what the number can be; none for one seed."""
        return self.interval_at(0.95)

    def interval_at(self, confidence: float) -> tuple[float, float] | None:
        """The t interval that covers the mean with the chance ``confidence``; 1 - 0.05 / m for each of m intervals."""
        if self.sd is None:
            return None
        half = t_quantile(self.n - 1, confidence) * self.sd / math.sqrt(self.n)
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
