"""What runs recorded of themselves, side by side: specification, code, data, machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.results import Results
from trainables.runs import SHORT
from vqcore.config import FIELDS

_SEARCH = ("epochs", "seeds", "objectives", "sampler", "early_stopping", "budget", "constraints")
"""What a specification says besides its fields, by the names of the journal."""

_DATA = {"data": "source", "data_hash": "hash", "image_size": "image size", "train_images": "training images"}
_DATA |= {"test_images": "test images"}

_NO_CODE = ("command", "hardware", *_DATA)
"""Tags of a run that say nothing of its code; the others are the commit and versions."""

_LISTED = 6
"""The most values of a field that are listed; of more, how many there are and the ends."""


@dataclass(frozen=True)
class Fact:
    """One thing that each run records."""

    kind: str
    """``specification``, ``code``, ``data`` or ``machine``."""
    name: str
    texts: tuple[str | None, ...]
    """Its value in each of the runs, in their order; none where it is not recorded."""

    @property
    def differs(self) -> bool:
        """Whether the runs do not all have the same."""
        return len(set(self.texts)) > 1

    @property
    def untold(self) -> bool:
        """Whether equal texts do not mean the same: commits with changes that were not committed, or unknown ones."""
        return self.name == "commit" and any(t and (t.endswith("+changes") or t == "unknown") for t in self.texts)

    def by_run(self, letters: str) -> str:
        """``0.9 in A, C; 0.8 in B``."""
        values: dict[str, list[str]] = {}
        for letter, text in zip(letters, self.texts, strict=False):
            values.setdefault("not recorded" if text is None else text, []).append(letter)
        all_of_them = "; ".join(f"{value} in {', '.join(runs)}" for value, runs in values.items())
        return all_of_them + ("; uncommitted changes are not recorded" if self.untold else "")


def facts(runs: Sequence[Results]) -> list[Fact]:
    """Everything that any of the runs records of itself, a fact each, specification first."""
    recorded = [_of(results) for results in runs]
    names = dict.fromkeys(name for one in recorded for name in one)
    return [
        Fact(kind, name, tuple(one.get((kind, name)) for one in recorded)) for kind, name in sorted(names, key=_place)
    ]


def _place(name: tuple[str, str]) -> int:
    return ("specification", "code", "data", "machine").index(name[0])


def _of(results: Results) -> dict[tuple[str, str], str]:
    """The facts of one run: by kind and name."""
    sweep = results.record.sweep
    tags = sweep.get("tags") or {}
    infos = [trial.info for trial in results.trials]
    found = {
        "specification": {**_fields(results), **{name.replace("_", " "): results.metadata(name) for name in _SEARCH}},
        "code": {name: value for name, value in tags.items() if name not in _NO_CODE},
        "data": {name: results.metadata(column) for column, name in _DATA.items()},
        "machine": {
            "hardware": tags.get("hardware"),
            "device": _listed(info.get("device") for info in infos),
            "precision in use": _listed(info.get("precision") for info in infos),
        },
    }
    return {
        (kind, name): str(value) for kind, part in found.items() for name, value in part.items() if value is not None
    }


def _fields(results: Results) -> dict[str, str | None]:
    """By field of the configuration: what it may be by the specification, else what it is in the trials."""
    space: Mapping[str, Any] = (results.record.sweep.get("toml") or {}).get("space") or {}
    found: dict[str, str | None] = {}
    for name in FIELDS:
        if name not in ("seed", "epochs"):
            values = space.get(name, [trial.config[name] for trial in results.trials if name in trial.config])
            found[SHORT.get(name, name)] = _range(values) if isinstance(values, Mapping) else _listed(values)
    return found


def _range(values: Mapping[str, Any]) -> str:
    return f"{_shown(values['low'])} to {_shown(values['high'])}{', logarithmic' if values.get('log') else ''}"


def _listed(values: Iterable[Any]) -> str | None:
    """The values, each once and in order; none if there are none."""
    distinct = {value for value in values if value is not None}
    texts = [_shown(value) for value in sorted(distinct, key=lambda value: (isinstance(value, str), value))]
    if len(texts) > _LISTED:
        return f"{len(texts)} values, {texts[0]} to {texts[-1]}"
    return ", ".join(texts) or None


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
