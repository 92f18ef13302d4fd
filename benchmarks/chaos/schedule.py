"""Which faults, and when: drawn from a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.faults import Fault

BURST = 0.2
"""Share of the faults that do not wait until the sweep has gone on after the one before: they meet a driver that is
only starting."""


@dataclass(frozen=True)
class Planned:
    """A fault and its time."""

    fault: Fault
    epochs: int
    """How many epochs have to be recorded first."""
    delay: float
    """Seconds after that, or after the fault before, whichever is later."""


def schedule(kinds: Sequence[Fault], faults: int, epochs: int, seed: int) -> list[Planned]:
    """``faults`` faults over a sweep of ``epochs`` epochs: each kind once, as far as there are faults enough, then by
    weight. The last one meets the end of the sweep."""
    chance = random.Random(f"chaos/{seed}")
    drawn = chance.sample(kinds, min(faults, len(kinds)))
    drawn += chance.choices(kinds, [kind.weight for kind in kinds], k=faults - len(drawn))
    chance.shuffle(drawn)
    # the sweep's end meets one that can strike there: the last such is put last
    last = max((place for place, kind in enumerate(drawn) if not kind.at_work), default=len(drawn) - 1)
    drawn.append(drawn.pop(last))
    # none in the first epochs, nor so late that nothing is left to break
    places = sorted(chance.randint(1, max(1, round(0.9 * epochs))) for _ in drawn)
    planned: list[Planned] = []
    for number, (kind, place) in enumerate(zip(drawn, places, strict=True)):
        if planned and chance.random() < BURST:
            place = planned[-1].epochs
        if number == len(drawn) - 1 and faults > 1 and not kind.at_work:
            place = epochs
        planned.append(Planned(kind, place, round(chance.uniform(0, 3), 2)))
    return planned
