"""How many trials share a GPU: the choice from what was measured, the measurement, and what the flag does."""

import io
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from read_back import TINY, Sweep, folder
from rich.console import Console

from sweeps import beta_ablation
from sweeps.beta_ablation import BetaAblation
from sweeps.engine import ray_cluster, resources, sharing
from sweeps.engine.plan import print_plan
from sweeps.engine.request import CheckedSweep, SweepRequest, check_request
from sweeps.engine.resources import Available, Gpu
from sweeps.engine.sharing import Row, Sharing, choose, measure, most_useful, mps_socket, share_gpu
from trainables.data import DataSet
from trainables.job import CUDA_CONTEXT
from trainables.journal import read
from trainables.recorder import JournalWriter
from vqcore.config import TrialConfig, problems_of, toml_text
from vqcore.estimators import ESTIMATORS, estimator

GB = 10**9
CARD = Gpu("NVIDIA H200", 141 * GB)
FREE = (16, "16 are the most that are measured")
CONFIG = TrialConfig().replace(codebook_size=16, batch_size=32, **{n: int(v) for n, v in (s.split("=") for s in TINY)})
Capture = pytest.CaptureFixture[str]


def rows(*images: float, memory: float = 1.0) -> list[Row]:
    return [Row(2**n, each, int(memory * GB), GB // 2) for n, each in enumerate(images)]


@pytest.mark.parametrize(
    ("measured", "capacity", "limit", "choice"),
    [
        ([], 80, FREE, None),
        (rows(100), 80, FREE, None),
        (rows(100, 190, 350), 80, FREE, None),
        (rows(100, 190, 199), 80, FREE, (2, "4 train 5% more images a second, and each takes longer to its end")),
        (rows(100, 90), 80, FREE, (1, "2 train 10% less images a second, and each takes longer to its end")),
        (rows(1, 2, 4, 8, 16), 80, FREE, (16, "32 were not tried: 16 are the most that are measured")),
        (rows(100, 190, 350, memory=3), 24, FREE, (4, "8 would take 24 GB of the GPU's 24 GB, of which 10% stay free")),
        (rows(100, memory=3), 24, (1, "only one CPU"), (1, "2 were not tried: only one CPU")),
        ([], 24, (1, "only one CPU"), (1, "2 were not tried: only one CPU")),
        (rows(100, 190, 350), 80, (3, "three trials"), (2, "4 were not tried: three trials")),
        ([*rows(100), Row(2, 0, 0, 0, "out of memory")], 24, FREE, (1, "2 could not be measured: out of memory")),
        ([Row(1, 0, 0, 0, "no such file")], 24, FREE, (1, "1 could not be measured: no such file")),
    ],
)
def test_trials_are_doubled_while_that_trains_more_images_and_they_fit(
    measured: list[Row], capacity: int, limit: tuple[int, str], choice: tuple[int, str] | None
) -> None:
    assert choose(measured, capacity * GB, limit) == choice


def test_a_plan_counts_how_much_slower_trials_are_side_by_side() -> None:
    assert Sharing(4, "", tuple(rows(100, 190, 200)), {}).slowdown == 2.0
    assert Sharing(1, "", (), {}).slowdown == 1.0


@pytest.mark.parametrize(
    ("trials", "cpus", "gpus", "limit"),
    [
        (400, 128, 8, (16, "16 are the most that are measured")),
        (100, 8, 2, (4, "each keeps a CPU busy, of 8 CPUs for 2 GPUs")),
        (5, 8, 1, (5, "the sweep has 5 trials for 1 GPU")),
        (30, 1, 2, (1, "each keeps a CPU busy, of 1 CPU for 2 GPUs")),
    ],
)
def test_no_more_than_there_are_cores_or_trials_for(trials: int, cpus: int, gpus: int, limit: tuple[int, str]) -> None:
    assert most_useful(trials, cpus, gpus) == limit


def test_mps_runs_where_its_socket_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert mps_socket() is None
    (tmp_path / "control").touch()
    assert mps_socket() == tmp_path / "control"


@pytest.mark.slow
def test_trainings_run_side_by_side_on_the_cpu_with_an_estimator_of_ones_own_and_are_not_measured_twice(
    data_set: DataSet,
) -> None:
    @estimator("quarter")
    def quarter(g_ND: Any, z_ND: Any, q_ND: Any) -> Any:
        return 0.25 * g_ND

    told: list[str] = []
    try:
        words = (CONFIG.replace(estimator="quarter"), data_set, Gpu("a CPU", 10**15), (2, "two cores"))
        first = share_gpu(*words, {}, told.append, seconds=0.2, on_gpu=False)
        again = share_gpu(*words, first.table(), told.append, seconds=0.2, on_gpu=False)
    finally:
        del ESTIMATORS["quarter"]
    assert len(told) == 1
    assert again == first
    assert [row.trials for row in first.rows] == [1, 2]
    assert all(row.images > 0 and row.memory == row.tensors > 50e6 and not row.trouble for row in first.rows)
    assert first.trials_per_gpu in (1, 2)
    assert "2 train" in first.reason or first.reason == "4 were not tried: two cores"


@pytest.mark.slow
def test_a_training_that_cannot_run_or_does_not_answer_is_a_result(
    data_set: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = replace(data_set, folder="/nowhere")
    trouble = "/nowhere/train.npy: No such file or directory"
    assert measure(CONFIG, nowhere, 1, 0.2, on_gpu=False) == Row(1, 0.0, 0, 0, trouble)
    monkeypatch.setattr(sharing, "LATE", 0.1)
    assert measure(CONFIG, data_set, 1, 0.2, on_gpu=False).trouble == "no answer within 0 s"


@pytest.mark.gpu
def test_on_a_gpu_contexts_are_no_larger_than_what_is_left_to_them(data_set: DataSet) -> None:
    alone, two = measure(CONFIG, data_set, 1, 1.0), measure(CONFIG, data_set, 2, 1.0)
    assert not alone.trouble + two.trouble
    context = 2 * (two.memory - two.tensors) - (alone.memory - alone.tensors)
    assert 100e6 < context <= CUDA_CONTEXT


@pytest.fixture
def check(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[CheckedSweep, list[int]]]:
    """Check a sweep of 12 trials with ``--trials-per-gpu auto`` on two GPUs that are made up, as are the measurements;
    what came out, and which numbers of trials were measured."""

    def check(**flags: Any) -> tuple[CheckedSweep, list[int]]:
        measured = []

        def made_up(config: TrialConfig, data: DataSet, trials: int, *_: object) -> Row:
            measured.append(trials)
            return Row(trials, min(100.0 * trials, 410.0), GB, GB // 2)

        monkeypatch.setattr(resources, "gpus", lambda: (CARD, CARD))
        monkeypatch.setattr(resources, "usable_cpus", lambda: 64)
        monkeypatch.setattr(sharing, "measure", made_up)
        base = {"data": str(images), "trials_per_gpu": "auto", "out": tmp_path, "name": "packed", "seeds": 8}
        given = BetaAblation(**{**base, **flags})
        request = SweepRequest("beta_ablation", ("sweeps.beta_ablation",), given, beta_ablation.spec(given))
        return check_request(request, lambda line: None), measured

    return check


def test_what_was_measured_is_booked_and_told_and_a_resume_keeps_it(
    check: Callable[..., tuple[CheckedSweep, list[int]]], tmp_path: Path
) -> None:
    checked, measured = check()
    assert measured == [1, 2, 4, 8]
    assert (checked.booking.slots, checked.booking.gpus) == (8, 0.25)
    told = "--trials-per-gpu auto: 4, since 8 train 2% more images a second, and each takes longer to its end."
    assert checked.notes[-1] == told
    assert checked.sharing is not None
    assert checked.sharing.slowdown == 1.0
    screen = Console(file=io.StringIO(), width=200)
    print_plan(screen, checked)
    plan = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "4: 400 images/s, 1.0 GB each, 500 MB of it beside tensors" in plan
    assert told in plan
    writer = JournalWriter(folder(tmp_path, "packed"))
    writer.write("sweep", sweep="beta_ablation", name="packed", toml={"sharing": checked.sharing.table()}, params={})
    writer.close()
    assert tomllib.loads(toml_text({"sharing": checked.sharing.table()}))["sharing"]["rows"][0]["images"] == 100
    again, measured = check(resume="packed")
    assert (measured, again.booking, again.sharing) == ([], checked.booking, checked.sharing)
    _, measured = check(resume="packed", batch_size=64)
    assert measured == [1, 2, 4, 8], "another shape"
    assert check(resume="packed", trials_per_gpu=2)[0].booking.gpus == 0.5


@pytest.mark.parametrize(
    ("flags", "slots", "note"),
    [
        ({"num_gpus": 0, "num_cpus": 3}, 3, "nothing to measure, the trials train on CPUs."),
        ({"address": "inline"}, 1, "nothing to measure, one trial at a time in this process."),
        ({"num_cpus": 2}, 2, "1, since 2 were not tried: each keeps a CPU busy, of 2 CPUs for 2 GPUs."),
    ],
)
def test_nothing_is_measured_where_one_trial_has_a_gpu_or_none(
    check: Callable[..., tuple[CheckedSweep, list[int]]], flags: dict[str, Any], slots: int, note: str
) -> None:
    checked, measured = check(**flags)
    assert (measured, checked.booking.slots) == ([], slots)
    assert checked.notes[-1] == f"--trials-per-gpu auto: {note}"


def test_a_cluster_whose_gpus_are_elsewhere_wants_a_number(
    check: Callable[..., tuple[CheckedSweep, list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "join", lambda address: Available(8, 2, f"the cluster at {address}"))
    cluster = {"address": "head:6379", "storage": str(tmp_path)}
    (problem,) = problems_of(lambda: check(**cluster))
    assert problem == (
        "--trials-per-gpu auto: measures a GPU of this machine, and the trials run on the cluster at head:6379; "
        "give a number, such as --trials-per-gpu 4"
    )
    assert check(**cluster, num_gpus=0)[0].booking.slots == 8


def test_auto_without_a_gpu_costs_a_line_and_is_kept_for_a_resume(out: Path, sweep: Sweep, capsys: Capture) -> None:
    assert sweep("--name", "auto", "--seeds", "1", "--trials-per-gpu", "auto", "--num-gpus", "0") == 0
    assert "--trials-per-gpu auto: nothing to measure" in " ".join(capsys.readouterr().out.split())
    assert read(folder(out, "auto") / "journal.jsonl").sweep["toml"]["flags"]["trials_per_gpu"] == "auto"
    assert sweep("--resume", "auto", "--plan") == 0
    assert "--trials-per-gpu auto: nothing to measure" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("word", ["many", "auto4"])
def test_another_word_is_refused(sweep: Sweep, capsys: Capture, word: str) -> None:
    with pytest.raises(SystemExit) as exit:
        sweep("--name", "never", "--trials-per-gpu", word)
    assert exit.value.code == 2
    assert "Error parsing --trials-per-gpu: no type matching" in " ".join(capsys.readouterr().err.split())
