"""What a person sees of a sweep in MLflow, as values: tags, descriptions, views, the table of trials, the data set.

``trainables.mlflow_sender`` sends them. MLflow documents the tags ``mlflow.note.content``, ``mlflow.parentRunId`` and
``mlflow.source.*``. Those of ``UNDOCUMENTED`` its user interface reads, and no page documents them: they are used by
name, and ``tests/trainables/test_mlflow_pages.py`` shows each of them in a browser.
"""

import json
import re
import shlex
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Run

from trainables.journal import RunRecord, TrialRecord
from trainables.mlflow_model import model_name
from trainables.runs import PRIOR_RUN, described
from trainables.sources import KNOWN

KIND, VIEW, TABLES = "mlflow.experimentKind", "mlflow.sharedViewState.", "mlflow.loggedArtifacts"
UNDOCUMENTED = (KIND, VIEW, TABLES)
"""Which interface an experiment opens in, its saved views, and which artifacts of a run are tables."""

TABLE = "trials.json"
"""The artifact of the parent run that lists its children."""

_CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar.html"
LISTED = 30
"""Runs in the description of an experiment at most, the newest first."""
LONGEST = 5000
"""Characters of an experiment's tag: what MLflow's databases take."""
_COLUMNS = ("mse", "perplexity", "usage", "bits")
"""Of runs that train models."""
_PRIOR_COLUMNS = ("validation_bits", "train_bits")
"""Of runs that train a prior."""
_PRIOR_FIELDS = ("kind", "classes", "width", "layers", "heads")
"""What people ask of a prior first."""
_NAME = "attributes.`Run Name`"
_NOT_SET_APART = ("seed", "epochs")


def swept(record: RunRecord) -> list[str]:
    """The fields that tell a sweep's configurations apart, the estimator first; of one configuration what people ask
    for first."""
    if record.sweep["sweep"] == PRIOR_RUN:
        return list(_PRIOR_FIELDS)
    names = [name for name in record.sweep.get("swept", ()) if name not in _NOT_SET_APART]
    return sorted(names, key=lambda name: name != "estimator") or ["estimator", "commitment_weight"]


def configuration(record: RunRecord, trial: TrialRecord) -> str:
    """What all seeds of a trial's configuration have in common, in words: ``rotation, beta 0.25``."""
    return described(trial.config, swept(record)) or "the configuration"


def trial_name(record: RunRecord, trial: TrialRecord) -> str:
    """``rotation, beta 0.25, seed 1``."""
    return described(trial.config, [*swept(record), "seed"]) or f"trial {trial.number}"


def params_in_order(record: RunRecord, trial: TrialRecord) -> dict[str, Any]:
    """A trial's configuration, what is swept before what all have in common."""
    first = [name for name in (*swept(record), "seed") if name in trial.config]
    return {name: trial.config[name] for name in (*first, *trial.config)}


def became(trial: TrialRecord) -> str:
    """The status of a trial, in one word: ``interrupted`` if it runs no more and has not ended."""
    return "interrupted" if trial.status == "running" and trial.end_time is not None else trial.status


def source_tags(sweep: Mapping[str, Any]) -> dict[str, str]:
    """Which module was started, and from which commit."""
    facts = sweep.get("tags", {})
    words = shlex.split(facts["command"]) if "command" in facts else []
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[1]).name if words[1:] else ""
    commit = str(facts.get("commit", "")).partition("+")[0]
    tags = {"mlflow.source.name": module, "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": commit}
    return {name: value for name, value in tags.items() if value} if module or commit else {}


def dataset(params: Mapping[str, Any]) -> DatasetInput | None:
    """The data set of a sweep, by its parameters; None of a record that names none. ``mlflow.data.get_source`` reads
    where it is from."""
    if not params.get("data"):
        return None
    location = str(params["data"])
    kind, source = ("http", {"url": _CIFAR10}) if location in KNOWN else ("local", {"uri": location})
    profile = {name: params[name] for name in ("train_images", "test_images", "image_size") if name in params}
    name, digest = Path(location).name, str(params.get("data_hash", "unknown"))
    data = Dataset(name, digest, kind, json.dumps(source), profile=json.dumps(profile))
    return DatasetInput(data, [InputTag("mlflow.data.context", "training and test")])


def model_tags(params: Mapping[str, Any]) -> dict[str, str]:
    """Of a prior, the model whose codes it learned: its hash, and the run that trained it, ``final/NAME``."""
    if "model_hash" not in params:
        return {}
    run = Path(str(params.get("model"))).parent
    return {"model_hash": str(params["model_hash"]), "model_run": f"{run.parent.name}/{run.name}"}


def trial_counts(record: RunRecord) -> dict[str, float]:
    """The number of trials, and of each status, as metrics of the sweep."""
    counts = Counter(map(became, record.trials.values()))
    kinds = ("completed", "stopped", "diverged", "failed", "interrupted")
    return {"trials": len(record.trials), **{f"trials_{kind}": counts[kind] for kind in kinds}}


def table_of_trials(record: RunRecord, front: Iterable[str]) -> dict[str, Any]:
    """A row for each trial, in the layout of ``MlflowClient.log_table``; those on the front first, then by the first
    metric."""
    fields, on_front, shown = [*swept(record), "seed"], set(front), shown_metrics(record.sweep["sweep"])
    metrics = [name for name in shown if any(name in t.epochs.get(t.last_epoch, {}) for t in record.trials.values())]

    def place(trial: TrialRecord) -> tuple[bool, float]:
        return trial.key not in on_front, trial.epochs.get(trial.last_epoch, {}).get(shown[0], float("inf"))

    rows = []
    for trial in sorted(record.trials.values(), key=place):
        last, front_text = trial.epochs.get(trial.last_epoch, {}), "yes" if trial.key in on_front else ""
        values = [trial.config.get(name) for name in fields]
        values += [float(f"{last[name]:.6g}") if name in last else None for name in metrics]
        rows.append([trial_name(record, trial), front_text, *values, trial.last_epoch, became(trial), trial.reason])
    return {"columns": ["trial", "on the front", *fields, *metrics, "epochs", "status", "why"], "data": rows}


def shown_metrics(sweep: str) -> tuple[str, ...]:
    """The metrics that tables of a sweep's trials show; every epoch has the first, by which they are sorted."""
    return _PRIOR_COLUMNS if sweep == PRIOR_RUN else _COLUMNS


def run_note(experiment: str, run: Run, findings: Iterable[str], report: str | None) -> str:
    """The description of a sweep's parent run: where its report is, and what was found."""
    links = [f"[{TABLE}]({place(experiment, run, TABLE)}): a row for each trial"]
    if report:
        links.insert(0, f"[{report}]({place(experiment, run, report)}): what was found")
    text = "\n\n".join([", ".join(links) + ".", "\n".join(f"- {_escaped(line)}" for line in findings)])
    return text.strip()[:LONGEST]


def final_note(sweep: dict[str, Any]) -> str:
    """The description of a final training's parent run: of what it is one, and how its model is loaded."""
    origin, name = sweep.get("origin") or {}, model_name(sweep)
    of = f"`{origin['export']}` of the sweep `{origin['sweep']}/{origin['name']}`" if origin else "one configuration"
    return (
        f"Full-length training of {of}. Its model is a version of the registered model `{name}`: "
        "`mlflow.pytorch.load_model` gives a module from images on [-1, 1] to their reconstructions, and `vqcore.load` "
        "reads the `extra_files/model.safetensors` in it, or the one in the training's folder."
    )


def prior_note(sweep: dict[str, Any], found: str) -> str:
    """The description of a prior's parent run: its model, how both are loaded, and what was ``found``."""
    of = model_tags(sweep.get("params", {}))
    return (
        f"Learned prior over the codes of the model `{of.get('model_hash')}`, trained by `{of.get('model_run')}`.\n\n"
        'In its folder, `prior = vqcore.load_prior("prior.safetensors")` reads it, and '
        '`model = vqcore.load("model.safetensors")` its model; '
        "`model.decode(prior.sample(16))` draws images, and `prior.bits(codes)` says what codes cost.\n\n"
        f"{found}"
    )[:LONGEST]


def experiment_note(experiment: str, sweep: str, runs: Iterable[Run]) -> str:
    """The description of an experiment: its views, what it is, its runs and their reports. MLflow's page shows the
    first line."""
    kind = {"final": "full-length trainings", PRIOR_RUN: "learned priors"}.get(sweep, f"sweeps by `{sweep}`")
    runs_of = _TRAINING.format(experiment, "")
    links = [f"[{view_name(id_, sweep)}]({runs_of}&viewStateShareKey={id_})" for id_ in VIEWS]
    lines = []
    for run in sorted(runs, key=lambda run: -run.info.start_time):
        line, report = (
            f"- [{_escaped(run.info.run_name)}]({place(experiment, run)})",
            run.data.tags.get("vqsweep.report"),
        )
        if report:
            line += f", [its report]({place(experiment, run, report)})"
        if report and len(links) == len(VIEWS):
            links.append(f"[newest report]({place(experiment, run, report)})")
        lines.append(line)
    text = f"vqsweep's {kind}: {', '.join(links)}.\n\n{_PRIORS if sweep == PRIOR_RUN else _SWEEPS} Newest first:\n\n"
    for line in lines:
        if len(text) + len(line) < LONGEST:
            text += f"{line}\n"
    return text


_SWEEPS = (
    "A run at the top level is one of them; the runs below it are its trials, one for each seed of a configuration. "
    "MSE is on images scaled to [-1, 1], over the whole test set. MLflow's means are of all seeds; those of a report "
    "leave out the seed that chose."
)
_PRIORS = (
    "A run at the top level is one of them, with its rates on the test set; the run below it is its training, in bits "
    "an image: `validation_bits` of a tenth of the training images, held out, which chose the epoch that is kept."
)


def described_as(note: str, known: Mapping[str, str]) -> dict[str, str]:
    """The tags of a description; none where a person has edited the one that is ``known``."""
    before = known.get("mlflow.note.content")
    if before and known.get("vqsweep.note") != _digest(before):
        return {}
    return {"mlflow.note.content": note, "vqsweep.note": _digest(note)}


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


_TRAINING = "#/experiments/{}/runs{}?workflowType=machine_learning"
"""The runs of an experiment, or one of them, in the interface for training."""


def training_link(server: str, experiment: str) -> str:
    """The address of an experiment in MLflow's interface for training: MLflow 3.17 opens it in the other one, whatever
    the tag ``KIND`` says, until a person has once chosen Model training."""
    return f"{server}/{_TRAINING.format(experiment, '')}"


def place(experiment: str, run: Run, artifact: str = "") -> str:
    """Where the server's pages have a run, or an artifact of it."""
    return _TRAINING.format(experiment, f"/{run.info.run_id}" + (f"/artifacts/{artifact}" if artifact else ""))


def _escaped(text: str) -> str:
    """``text`` as Markdown shows it literally."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


VIEWS = {"vqsweep-trials": "trials, lowest {} first", "vqsweep-configurations": "configurations, mean over all seeds"}
"""The saved views of an experiment, by their ids."""


def view_name(view: str, sweep: str) -> str:
    """What a saved view is called: ``trials, lowest MSE first``."""
    return VIEWS[view].format("validation_bits" if sweep == PRIOR_RUN else "MSE")


def saved_view(view: str, sweep: str, fields: Iterable[str], known: str | None) -> str:
    """The value of a view's tag. The ``known`` one stays as it is, but for columns of the fields that it lacks."""
    metrics, params = [f"metrics.`{name}`" for name in shown_metrics(sweep)], [f"params.`{name}`" for name in fields]
    group = "model_hash" if sweep == PRIOR_RUN else "run"
    tags = ["tags.`model_hash`" if sweep == PRIOR_RUN else "tags.`front`", "tags.`status`"]
    columns = [*metrics[:2], *tags, *params, *metrics[2:], "tags.`reason`"]
    widths = {column: max(90, 9 * len(column) - 70) for column in columns} | {_NAME: 330}
    state: dict[str, Any] = {
        "searchFilter": "tags.`vqsweep.trial` LIKE '%'",
        "orderByKey": metrics[0],
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": [_NAME, *columns],
        "columnWidths": widths,
    }
    if view == "vqsweep-configurations":
        keys = [{"mode": "tag", "groupByData": name} for name in ("configuration", group)]
        state["groupBy"] = {"aggregateFunction": "average", "groupByKeys": keys}
    now = round(time.time() * 1000)
    envelope = {"name": view_name(view, sweep), "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    try:
        before = json.loads(known or "")
        kept = json.loads(before["state"])
        missing = [column for column in params if column not in kept["selectedColumns"]]
    except (ValueError, KeyError, TypeError):  # none, or one that MLflow's interface has compressed
        return known or json.dumps(envelope)
    kept["selectedColumns"] = [*kept["selectedColumns"], *missing]
    return json.dumps({**before, "state": json.dumps(kept)}) if missing else str(known)
