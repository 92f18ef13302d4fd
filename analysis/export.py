"""Configurations ready for ``trainables.final``, each with the evidence for it as comments."""

from datetime import UTC, datetime
from pathlib import Path

from analysis.findings import front_sentence
from analysis.layout import write_file
from analysis.objectives import metric_of
from analysis.results import Group, Results, ranked
from vqcore.config import TrialConfig, toml_text

_DATA = {"source": "data", "hash": "data_hash", "image_size": "image_size"}
_KNEE = (
    "knee of the front of the means: farthest from the chord between the scaled front's ends (Das 1999); "
    "of a front without a bulge, its "
)


def write_exports(results: Results) -> list[Path]:
    """Write ``exports/knee.toml`` and, of each objective, ``best_mse.toml``: model, training and data.

    The seed is the lowest of the configuration's, the epochs those that were compared. None if no trial has completed.
    """
    chosen = {
        f"best_{one.column}": (group, f"{one.best} by the means")
        for one in results.objectives
        for group in ranked(results.groups, one)[:1]
    }
    if results.knee:
        chosen["knee"] = (results.knee, _KNEE + results.objectives[0].best)
    found = {name: results.metadata(key) for name, key in _DATA.items()}
    data = {name: value for name, value in found.items() if value is not None}
    paths = []
    for name, (group, rule) in chosen.items():
        config = TrialConfig.from_flat({**group.config, "seed": group.seeds[0], "epochs": results.epoch})
        text = toml_text({**config.toml(), "data": data}, _evidence(results, group, rule))
        paths.append(write_file(results.folder / "exports" / f"{name}.toml", text.encode()))
    return paths


def _evidence(results: Results, group: Group, rule: str) -> str:
    commit = results.metadata("commit") or "not recorded"
    lines = [
        f"{group.label}: {rule}, of {len(results.groups)} configurations",
        f"sweep {results.name}, commit {commit}, exported {datetime.now(UTC):%Y-%m-%d}",
        f"seeds {', '.join(map(str, group.seeds))}; after epoch {group.epoch}; whole test set of {results.data}",
    ]
    for column in dict.fromkeys(("mse", "perplexity", *results.columns)):
        name = "MSE on [-1, 1]" if column == "mse" else metric_of(column).name
        estimate = group.estimate(column)
        interval = f"95 % interval {estimate.interval_text()}"
        certainty = interval if estimate.n > 1 else "one seed, so no interval and no claim"
        lines.append(f"{name}: {estimate.text}, {certainty}, n = {estimate.n}")
    lines.append(front_sentence(results))
    # TOML allows no control characters in comments, and a name could hold some.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
