"""The page put together: each part's conclusion, its drawings, and the records that the script links them by."""

import hashlib
import json
import logging
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from threadpoolctl import threadpool_limits

from analysis.alarms import ALARMS, Alarm, alarms
from analysis.effects import field_effects
from analysis.findings import certainty_sentence, front_sentence, not_begun, sentences
from analysis.layout import counted, write_file
from analysis.page import answer, codebooks, fields, pictures, prior, trials
from analysis.page.axes import axes
from analysis.page.curves import curve_figures
from analysis.page.effects import effect_figures, importance_figures
from analysis.page.fronts import front_figure, rate_figures
from analysis.page.provenance import missing, provenance_lead, provenance_table
from analysis.page.search import found_over_epochs, found_over_time, survival_figure, timeline_figure
from analysis.page.svg import Figure, element, mark, path
from analysis.page.tuning import tuning_figures
from analysis.page.view import View
from analysis.results import Group, Results, ranked
from analysis.stopping import stopping_sentence
from trainables.runs import MLFLOW_PAGES, PRIOR_RUN
from vqcore.psnr import psnr

logger = logging.getLogger(__name__)

PARTS = (
    ("answer", "Train next"), ("alarms", "Alarms"), ("fronts", "Fronts"), ("curves", "Curves"),
    ("reconstructions", "Reconstructions"), ("fields", "Fields"), ("codebooks", "Codebooks"),
    ("prior", "Learned prior"), ("search", "Search"), ("trials", "Trials"), ("provenance", "Provenance"),
)  # fmt: skip
"""In the order of the page: the id and the name of each. A prior is shown where there is one; its own run has no other
part but provenance."""

_SHAPES = (
    "M0-{0}A{0} {0} 0 1 1-.01-{0}Z", "M-{0}-{0}H{0}V{0}H-{0}Z", "M0-{1}L{1} {0}H-{1}Z", "M0-{1}L{1} 0L0 {1}L-{1} 0Z",
    "M-{1}-{0}L-{0}-{1}L0-{2}L{0}-{1}L{1}-{0}L{2} 0L{1} {0}L{0} {1}L0 {2}L-{0} {1}L-{1} {0}L-{2} 0Z",
    "M0 {1}L{1}-{0}H-{1}Z", "M-{2}-{1}H{2}V-{2}H{1}V{2}H{2}V{1}H-{2}V{2}H-{1}V-{2}H-{2}Z",
)  # fmt: skip
"""A marker for each of ``view.SHAPES``: circle, square, triangle, diamond, cross, triangle downwards, plus."""


def write_page(results: Results, refresh: int = 0) -> Path:
    """Write ``report.html`` of a run, finished or not. With ``refresh`` it loads itself anew so many seconds later."""
    with threadpool_limits(limits=1, user_api="blas"):  # where trials have the cores, two threads wait for each other
        return write_file(results.folder / "report.html", page(results, refresh).encode())


def page(results: Results, refresh: int = 0) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("analysis.page", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"swatch": _swatch, "row": _row}
    view, style, script = View(results), _asset("page.css"), _asset("page.js")
    problems: list[str] = []
    of_models, learned = results.kind != PRIOR_RUN, _tried(prior.section, view, problems, None)
    content = {
        "title": f"{results.name}: {results.kind or 'sweep'} of {results.data}",
        "compared": _compared(results) if of_models else f"A learned prior over codes of {results.data}",
        "made": f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC." + (" Loads itself anew." if refresh else ""),
        "parts": [
            (id_, name) for id_, name in PARTS if id_ == "provenance" or (learned if id_ == "prior" else of_models)
        ],
        "refresh": refresh,
        "style": Markup(style),
        "style_hash": _hash(style),
        "script": Markup(script),
        "script_hash": _hash(script),
        "shapes": _shapes(),
        "of_models": of_models,
        **(_of_models(view, refresh, problems) if of_models else {}),
        "prior": learned,
        "provenance": provenance_table(view),
        "provenance_lead": provenance_lead(view),
        "missing": [*missing(view), *results.shown.problems, *view.problems, *problems],
    }
    return environment.get_template("page.html").render(content)


def _of_models(view: View, refresh: int, problems: list[str]) -> dict[str, Any]:
    """The parts that every run has but one that trained a prior."""
    strips, unread = pictures.strips(view)
    problems += unread
    return {
        "strips": strips,
        "at_once": pictures.AT_ONCE,
        **_said(view, problems),
        **_drawn(view, problems),
        "trial_columns": trials.columns(view),
        "trials": trials.rows(view),
        "data": _data(view, refresh),
    }


def _said(view: View, problems: list[str]) -> dict[str, Any]:
    """The sentence that heads each part, and the parts that are words."""
    results = view.results
    found, odd = _tried(sentences, results, problems, ()), _tried(alarms, results, problems, None)
    counts = Counter(trial.status for trial in view.trials)
    ended = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    return {
        "headline": _headline(results),
        "picks": answer.picks(view) if results.kind != "final" else [],
        "findings": found,
        "alarms": odd or (),
        "alarms_lead": _alarms_lead(view, odd),
        "fronts_lead": _fronts_lead(results),
        "curves_lead": _curves_lead(results),
        "effects": [one.sentence for one in _tried(field_effects, results, problems, ())],
        "codebooks_lead": _tried(codebooks.lead, view, problems, ""),
        "search_lead": _tried(stopping_sentence, results, problems, None)
        or f"{counted(len(view.trials), 'trial')}: {ended or 'none has begun'}.",
        "trials_lead": f"{counted(len(view.trials), 'trial')}: {ended or 'none has begun'}. A click on a head sorts.",
    }


def _drawn(view: View, problems: list[str]) -> dict[str, Any]:
    """The figures of each part."""

    def made(*makes: Callable[[View], Figure | Sequence[Figure] | None]) -> list[Figure]:
        figures: list[Figure] = []
        for make in makes:
            drawn = _tried(make, view, problems, None)
            figures += [drawn] if isinstance(drawn, Figure) else drawn or []
        return figures

    return {
        "fronts": made(front_figure, found_over_epochs, rate_figures),
        "curves": made(curve_figures),
        "fields": made(effect_figures, importance_figures, tuning_figures, fields.parallel_figure),
        "slices": made(fields.slice_figures),
        "codebooks": made(codebooks.usage_figure, codebooks.evolution_figure),
        "pictures": _tried(codebooks.snapshot_pictures, view, problems, []),
        "search": made(timeline_figure, survival_figure, found_over_time),
    }


def _tried(make: Callable[[Any], Any], argument: object, problems: list[str], otherwise: Any) -> Any:
    """What is made, or ``otherwise`` and a line: one drawing that fails must not hide the others."""
    try:
        return make(argument)
    except Exception as error:  # the same run is shown as far as it can be
        problems.append(
            f"{make.__name__.strip('_').replace('_', ' ')}: could not be made ({type(error).__name__}: {error})."
        )
        return otherwise


def _compared(results: Results) -> str:
    if not results.groups:
        return f"{results.data}; nothing to compare yet"
    return f"{results.data}, compared after epoch {results.epoch}, {results.seeds} a configuration"


def _alarms_lead(view: View, odd: Sequence[Alarm] | None) -> str:
    """What was found; trials that broke are no alarm, and no reason to say that nothing is wrong."""
    if odd is None:
        return "What looks wrong could not be looked for."
    if not any(trial.epochs or trial.status == "failed" for trial in view.trials):
        return "No trial has had an epoch: there is nothing to look at."
    counts = Counter(trial.status for trial in view.trials)
    broke = [f"{counts[status]} {status}" for status in ("diverged", "failed") if counts[status]]
    rest = (
        f" Of {counted(len(view.trials), 'trial')} {' and '.join(broke)}; the table has the reasons." if broke else ""
    )
    if odd:
        return f"{counted(len(odd), 'thing')} of {len(ALARMS)} kinds looked for: look before you trust.{rest}"
    return f"{'None' if broke else 'Nothing looks wrong: none'} of {len(ALARMS)} kinds of trouble was found.{rest}"


def _headline(results: Results) -> str:
    """What to train next, and whether more than one seed says so."""
    if not results.groups:
        return f"No trial has completed{_yet(results)}, so there is nothing to choose."
    if results.kind == "final":
        return f'A full-length training. Use its model: vqcore.load("{results.folder / "model.safetensors"}")'
    first, *others = results.front or results.groups
    if len(results.estimated) < 2:
        which = "that has completed" if results.screening is None else f"with seeds beside seed {results.screening}"
        return f"{first.label}: the only configuration {which}, so there is nothing to choose from."
    if len(results.aims) == 1:
        aim = results.aims[0]
        best = ranked(results.groups, aim)[0]
        return f"{best.label}: the {aim.best}.{_doubt(best)}"
    if bend := answer.compromise(results):
        return f"{bend.label}: where the front bends most, a compromise between {_aims(results)}.{_doubt(bend)}"
    means = {tuple(group.mean(column) for column in results.columns) for group in (first, *others)}
    if len(means) == 1:
        equal = f" Equal to it: {counted(len(others), 'other configuration')}." if others else ""
        return f"{first.label}: the best in both objectives, so there is no trade-off to make.{equal}{_doubt(first)}"
    lowest = results.objectives[0].best
    return f"{first.label}: the {lowest}. The front has no bend, so no compromise stands out.{_doubt(first)}"


def _doubt(group: Group) -> str:
    return "" if len(group.seeds) > 1 else " By one seed, so it is an order and not a claim."


def _yet(results: Results) -> str:
    """Where trials may still end."""
    return " yet" if not_begun(results) or any(trial.status == "running" for trial in results.trials) else ""


def _aims(results: Results) -> str:
    return " and ".join(objective.best for objective in results.objectives)


def _fronts_lead(results: Results) -> str:
    if not results.groups:
        return f"No configuration is completed{_yet(results)}."
    return " ".join(
        filter(None, (front_sentence(results, listed=len(results.front) <= 12), certainty_sentence(results)))
    )


def _curves_lead(results: Results) -> str:
    """Whether the front would still move with a longer training."""
    if not results.groups:
        return f"No configuration is completed{_yet(results)}."
    if results.epoch < 2:
        return "One epoch: nothing to say of the course."
    changes = [
        100 * (after["mse"] / before["mse"] - 1)
        for group in results.front
        for trial in group.trials
        if (before := trial.epochs.get(group.epoch - 1))
        and (after := trial.epochs[group.epoch])
        and before.get("mse")
        and "mse" in after
    ]
    if not changes:
        return f"The MSE before epoch {results.epoch} is not recorded: nothing to say of the course."
    mean, size = fmean(changes), fmean(map(abs, changes))
    longer = "a longer training changes the numbers, and may change the order"
    if size < 0.5:
        return f"On the front MSE has settled: it changed by {size:.1f} % in the last epoch."
    if min(changes) < 0 < max(changes):
        return (
            f"On the front MSE changed by {min(changes):+.1f} % to {max(changes):+.1f} % in the last epoch: {longer}."
        )
    if mean > 0:
        return f"On the front MSE rose by {mean:.1f} % in the last epoch: an earlier epoch was better."
    return f"On the front MSE still fell by {-mean:.1f} % in the last epoch: {longer}."


def _data(view: View, refresh: int) -> Markup:
    """What the script knows, as JSON that cannot end its element."""
    results = view.results
    scales = [
        {
            "label": one.label,
            "low": one.scale.low,
            "high": one.scale.high,
            "log": one.scale.log,
            "values": [text for _, text in one.ticks] if one.values else None,
            "at": [round(one.scale(value), 4) for value, _ in one.ticks],
        }
        for one in axes(view)
    ]
    known = {
        "id": str(results.record.sweep.get("id") or results.name),
        "refresh": refresh,
        "axes": scales,
        "groups": [_group(results, group) for group in results.groups],
        "trials": trials.records(view, _mlflow_runs(results.folder)),
    }
    return Markup(json.dumps(known, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _group(results: Results, group: Group) -> dict[str, Any]:
    facts = [("seeds", f"{len(group.seeds)}" if group.trials else "the screening seed alone")]
    for objective in results.objectives:
        estimate = results.estimate(group, objective.column)
        interval = f" {estimate.interval_text()}" if estimate.n > 1 else ""
        facts.append((objective.name, f"{group.text(objective.column)}{interval}"))
        if objective.column == "mse" and group.trials:
            facts.append(("PSNR", f"{psnr(estimate.mean):.2f} dB"))
    if results.several and group.trials:
        facts.append(("on the front", f"with probability {results.on_front[results.estimated.index(group)]:.2f}"))
    return {"name": group.label, "facts": facts}


def _mlflow_runs(folder: Path) -> dict[str, str]:
    """The address of each trial's run in MLflow's pages, by key, as the process that tells MLflow left them."""
    try:
        found: dict[str, str] = json.loads((folder / MLFLOW_PAGES).read_text())
    except (OSError, ValueError):
        return {}
    return {key: page for key, page in found.items() if page.startswith(("http://", "https://"))}


def _shapes() -> Markup:
    sizes = (("m", 5.0, 6.5, 2.2), ("s", 3.0, 3.9, 1.3))
    return Markup("").join(
        element("path", id=f"{kind}{index}", d=shape.format(half, whole, arm))
        for kind, half, whole, arm in sizes
        for index, shape in enumerate(_SHAPES)
    )


def _swatch(look: str) -> Markup:
    """A legend's entry: ``line front``, ``area band``, or a marker's classes."""
    kind, _, classes = look.partition(" ")
    if kind == "line":
        return path([(0, 7), (18, 7)], classes)
    if classes == "end":
        return path([(5, 3), (13, 11), (9, 7), (5, 11), (13, 3)], classes)
    if kind == "area":
        return element("rect", x=1, y=2, width=16, height=10, class_=classes)
    shape = next((name[1:] for name in classes.split() if name[1:].isdigit()), "0")
    return mark(9, 7, int(shape), look)


def _row(strip: pictures.Strip) -> Markup:
    number = Markup("") if strip.trial is None else Markup(' data-t="{}"').format(strip.trial)
    return Markup('<div class="row"{0}><p>{1}<br><small>{2}</small></p><img{0} src="{3}" alt="{4}"></div>').format(
        number, strip.label, strip.below, strip.source, f"test images, {strip.label}"
    )


def _asset(name: str) -> str:
    return resources.files("analysis.page").joinpath(name).read_text()


def _hash(content: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
