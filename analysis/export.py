"""Configurations ready for ``trainables.final``, each with the evidence for it as comments."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from analysis.findings import front_sentence, interval_of
from analysis.layout import write_file
from analysis.objectives import metric_of
from analysis.results import Group, Results, ranked
from vqcore.config import TrialConfig, toml_text

_DATA = {"source": "data", "hash": "data_hash", "image_size": "image_size"}
_KNEE = "farthest from the chord between the scaled front's ends (Das 1999); of a front without a bulge, its "


class Recommendation(NamedTuple):
    """A configuration worth a full-length training."""

    name: str
    """Of its file: ``knee``."""
    group: Group
    rule: str
    """Why this one, in words."""


def recommendations(results: Results) -> list[Recommendation]:
    """The knee of the front and the best in each objective; none if no trial has completed."""
    chosen = [
        Recommendation(f"best_{one.column}", group, f"{one.best} by {_means([group])}")
        for one in results.objectives
        for group in ranked(results.groups, one)[:1]
    ]
    if results.knee:
        rule = f"knee of the front of {_means(results.front)}: {_KNEE}{results.objectives[0].best}"
        chosen.insert(0, Recommendation("knee", results.knee, rule))
    return chosen


def write_exports(results: Results) -> list[Path]:
    """Write ``exports/knee.toml`` and, of each objective, ``best_mse.toml``: model, training and data.

    The seed is the lowest that counts of the configuration's, the epochs those that were compared; ``origin.seeds``
    are all that had a part in choosing it. None if no trial has completed.
    """
    found = {name: results.metadata(key) for name, key in _DATA.items()}
    data = {name: value for name, value in found.items() if value is not None}
    paths = []
    for name, group, rule in recommendations(results):
        config = TrialConfig.from_flat({**group.config, "seed": group.seeds[0], "epochs": results.epoch})
        chose = sorted({*group.seeds, *([] if results.screening is None else [results.screening])})
        named = {"sweep": results.record.sweep.get("sweep", ""), "name": results.name, "export": name}
        origin = {**named, "seeds": chose}
        text = toml_text({**config.toml(), "data": data, "origin": origin}, _evidence(results, group, rule))
        paths.append(write_file(results.folder / "exports" / f"{name}.toml", text.encode()))
    return paths


def _means(groups: Sequence[Group]) -> str:
    """What placed the groups where they are."""
    return "the means" if all(len(group.seeds) > 1 for group in groups) else "one seed, an order and no claim"


def _evidence(results: Results, group: Group, rule: str) -> str:
    commit = results.metadata("commit") or "not recorded"
    screened = "" if results.screening is None else f" (seed {results.screening} screened and is in no figure here)"
    lines = [
        f"{group.label}: {rule}, of {len(results.estimated)} configurations",
        f"sweep {results.name}, commit {commit}, exported {datetime.now(UTC):%Y-%m-%d}",
        f"seeds {', '.join(map(str, group.seeds))}{screened}; after epoch {group.epoch}; "
        f"whole test set of {results.data}",
    ]
    for column in dict.fromkeys(("mse", "perplexity", *results.columns)):
        name = "MSE on [-1, 1]" if column == "mse" else metric_of(column).name
        estimate = results.estimate(group, column)
        certainty = (
            interval_of(results, estimate) if estimate.n > 1 else "one seed: an order, so no interval and no claim"
        )
        lines.append(f"{name}: {estimate.text}, {certainty}, n = {estimate.n}")
    lines.append(front_sentence(results))
    # TOML allows no control characters in comments, and a name could hold some.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
