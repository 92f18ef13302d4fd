"""Where the time of a sweep went, from its journal, and which share of it its trials alone would have needed: pure."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from benchmarks.bare import Bare
from trainables.journal import Event

Epochs = list[tuple[float, float, str]]
"""When each began and ended, in seconds since 1970, and of which trial; in order."""


def epochs_by_process(events: Iterable[Event]) -> dict[int, Epochs]:
    """The epochs that each process trained. One ended at its event's time and began ``seconds`` before, to a ms."""
    process: dict[str, int] = {}
    epochs: dict[int, Epochs] = defaultdict(list)
    for event in events:
        if event["event"] == "start":  # again with the process, once the trial has told it
            process |= {event["trial"]: event["info"]["pid"]} if "pid" in event["info"] else {}
        elif event["event"] == "epoch":
            began = event["time"] - event["metrics"]["seconds"]
            epochs[process[event["trial"]]].append((began, event["time"], event["trial"]))
    return {pid: sorted(own) for pid, own in epochs.items()}


def share(alone: Bare, epochs: int, slots: int, wall: float) -> float:
    """Of the epochs that ``slots`` processes of bare loops would have done in ``wall`` seconds, those that were."""
    return epochs * alone.epoch / slots / wall


def parts(
    events: list[Event], started: float, wall: float, data: float, network: Bare, trial: Bare, slots: int
) -> dict[str, float]:
    """Seconds of the sweep's wall time by what the slots did then, in order; they sum to ``wall``.

    ``data`` seconds of the time before the ``sweep`` event went into the data set. ``ValueError`` unless every slot was
    one process.
    """
    processes = list(epochs_by_process(events).values())
    if len(processes) != slots:
        raise ValueError(f"the epochs were trained by {len(processes)} processes, and there were {slots} slots")
    told = next(event["time"] for event in events if event["event"] == "sweep")
    first = next(event["time"] for event in events if event["event"] == "start")
    done = next(event["time"] for event in reversed(events) if event["event"] == "done")
    last = max(own[-1][1] for own in processes)
    count = sum(map(len, processes))
    trained = sum(ended - began for own in processes for began, ended, _ in own)
    gaps = sum(max(0.0, begins - ended) for own in processes for (_, ended, _), (begins, _, _) in pairwise(own))
    files = min(gaps, trial.files * (count - slots))
    return {
        "start of the process, its imports, checks": told - started - data,
        "the data set, decoded": data,
        "Ray's start": first - told,
        "the first trials' processes, their imports": sum(own[0][0] - first for own in processes) / slots,
        "encoder and decoder: training": count * (network.epoch - network.evaluation) / slots,
        "encoder and decoder: evaluation": count * network.evaluation / slots,
        "quantizer and metrics": count * (trial.epoch - network.epoch) / slots,
        "epochs take longer than alone": (trained - count * trial.epoch) / slots,
        "checkpoints and other files": files / slots,
        "waiting between two epochs": (gaps - files) / slots,
        "a slot without a trial at the end": sum(last - own[-1][1] for own in processes) / slots,
        "Ray's end, tables, figures": done - last,
        "MLflow, exit": started + wall - done,
    }
