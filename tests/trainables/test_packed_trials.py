"""Trials that train together: each keeps its own checkpoints, reports and end."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainables import device
from trainables.data import DataSet
from trainables.job import Report, TrialJob
from trainables.pack import TrialGroup
from trainables.pack_host import PackDiedError, PackHost
from trainables.trial import Trial
from vqcore.config import TrialConfig
from vqcore.pack import _Fused
from vqcore.registry import ARCHITECTURES, ESTIMATORS, estimator

Job = Callable[..., TrialJob]


@pytest.fixture
def job(data_set: DataSet, tmp_path: Path) -> Job:
    """A small trial with these changes, its files under a name."""

    def make(name: str, **changes: object) -> TrialJob:
        small = {"channels": 8, "hidden_channels": 12, "residual_channels": 6, "dim": 8, "codebook_size": 32}
        small |= {"batch_size": 16, "precision": "fp32", "learning_rate": 1e-3, "decay": 0.9, "epochs": 2}
        config = TrialConfig().replace(**{**small, **changes})
        (tmp_path / name).mkdir(exist_ok=True)
        return TrialJob(name, 0, config, data_set, str(tmp_path / name), snapshots=(0, 1))

    return make


def report(found: dict[str, Report | Exception], key: str) -> Report:
    one = found[key]
    assert isinstance(one, Report), one
    return one


def without_seconds(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "seconds"}


def files(folder: Path) -> set[str]:
    """What a trial keeps, checkpoints without their digests."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name[:11] if name.startswith("epoch-") else name for name in names}


def test_trials_of_a_group_report_and_keep_what_each_would_alone(job: Job, tmp_path: Path) -> None:
    group = TrialGroup()
    for name, changes in (("a", {}), ("b", {"commitment_weight": 2.0}), ("c", {"codebook_size": 16})):
        group.open(job(name, **changes), 0)
    found = [group.step(), group.step()]
    assert [report(steps, "b").status for steps in found] == ["running", "completed"]
    assert len(group) == 0, "trials that have ended stay in the group"
    alone = Trial.open(job("alone", commitment_weight=2.0))
    for steps in found:
        mine, own = report(steps, "b"), alone.step()
        assert without_seconds(mine.metrics) == pytest.approx(without_seconds(own.metrics), rel=1e-4)
        assert mine.epoch == own.epoch
        assert mine.metrics["seconds"] > 0
    assert files(tmp_path / "b") == files(tmp_path / "alone")


def test_a_trial_goes_on_from_its_checkpoint_in_another_group(job: Job) -> None:
    first = TrialGroup()
    for name in ("a", "b"):
        first.open(job(name, epochs=3), 0)
    first.step()
    second = TrialGroup()
    for name in ("b", "new"):
        second.open(job(name, epochs=3), 1 if name == "b" else 0)
    resumed, went_on = report(second.step(), "b"), report(first.step(), "b")
    assert resumed.info["resumed_from"] == 1
    assert resumed.epoch == went_on.epoch == 2
    assert without_seconds(resumed.metrics) == pytest.approx(without_seconds(went_on.metrics), rel=1e-4)


@pytest.fixture
def broken() -> Iterator[str]:
    @estimator("broken")
    def gradient(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
        raise ZeroDivisionError("of its own")

    yield "broken"
    del ESTIMATORS["broken"]


def test_a_trial_whose_estimator_breaks_ends_alone(job: Job, broken: str) -> None:
    group = TrialGroup()
    group.open(job("good"), 0)
    group.open(job("bad", estimator=broken), 0)
    found = group.step()
    assert isinstance(found["bad"], ZeroDivisionError)
    assert report(found, "good").epoch == 1
    assert len(group) == 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each pack that was made has."""
    sizes: list[int] = []
    monkeypatch.setattr(_Fused, "try_out", lambda self, images: sizes.append(len(self.members)))
    return sizes


def test_a_pack_stays_as_it_is_in_whatever_order_its_members_ask(job: Job, made: list[int]) -> None:
    group = TrialGroup()
    for name in ("a", "b"):
        group.open(job(name), 0)
    group.step(["a", "b"])
    group.step(["b", "a"])
    assert made == [2]


def test_a_resumed_trial_trains_as_one_with_a_new_one(job: Job, made: list[int]) -> None:
    Trial.open(job("a", precision="auto")).step()
    group = TrialGroup()
    for name, recorded in (("a", 1), ("b", 0)):
        group.open(job(name, precision="auto"), recorded)
    found = group.step()
    assert [report(found, name).epoch for name in ("a", "b")] == [2, 1]
    assert made == [2]


@pytest.fixture
def large() -> Iterator[str]:
    """An estimator that runs out of memory in its third step, and the second time in its eighth."""
    calls: list[int] = []

    @estimator("large")
    def gradient(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) in (3, 8):
            raise torch.OutOfMemoryError
        return g_ND

    yield "large"
    del ESTIMATORS["large"]


def test_trials_that_do_not_fit_into_memory_as_one_train_in_smaller_packs(
    job: Job, large: str, made: list[int]
) -> None:
    group, names = TrialGroup(), ("a", "b", "c", "d")
    for name in names:
        group.open(job(name, estimator=large if name == "a" else "ste"), 0)
    found = [group.step(), group.step()]
    assert made == [4, 2], "after the second time each trains alone"
    alone = Trial.open(job("alone", estimator="ste"))
    for steps in found:
        own = without_seconds(alone.step().metrics)
        for name in names:
            assert without_seconds(report(steps, name).metrics) == pytest.approx(own, rel=1e-4)


@pytest.fixture
def exhausted() -> Iterator[str]:
    @estimator("exhausted")
    def gradient(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
        return next(iter(()))

    yield "exhausted"
    del ESTIMATORS["exhausted"]


def test_whatever_a_member_raises_every_other_has_its_answer(job: Job, exhausted: str) -> None:
    registered = dict(ESTIMATORS), dict(ARCHITECTURES)

    async def course() -> list[Report | BaseException]:
        host = PackHost()
        bad, good = (
            host.step(job("bad", estimator=exhausted), 0, 1, *registered),
            host.step(job("good"), 0, 2, *registered),
        )
        return await asyncio.wait_for(asyncio.gather(bad, good, return_exceptions=True), 20)

    bad, good = asyncio.run(course())
    assert isinstance(bad, Exception)
    assert isinstance(good, Report)


def test_a_process_that_has_lost_its_gpu_blames_no_trial(
    job: Job, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "gpu_is_lost", lambda: True)
    registered = dict(ESTIMATORS), dict(ARCHITECTURES)

    async def course() -> list[Report | BaseException]:
        host, bad = PackHost(), job("bad", estimator=broken)
        asked = host.step(bad, 0, 1, *registered), host.step(job("good"), 0, 2, *registered)
        return await asyncio.gather(*asked, return_exceptions=True)

    for error in asyncio.run(course()):
        assert isinstance(error, PackDiedError)
        assert "ZeroDivisionError: of its own" in str(error)


def test_a_trial_that_comes_back_before_the_word_that_it_left_loses_no_epoch(job: Job) -> None:
    registered = dict(ESTIMATORS), dict(ARCHITECTURES)

    async def course() -> Report:
        host, a = PackHost(), job("a", epochs=3)
        await host.step(a, 0, 1, *registered)  # a report that was lost with the process that had asked for it
        return await host.step(a, 0, 2, *registered)

    assert asyncio.run(course()).epoch == 1


def test_a_warning_of_the_process_of_a_pack_comes_with_one_report(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    async def course() -> list[Report]:
        host, trial = PackHost(), (job("a"), 0, 1, dict(ESTIMATORS), dict(ARCHITECTURES))
        logging.getLogger("vqcore.pack").warning("they take turns")
        return [await host.step(*trial), await host.step(*trial)]

    assert [report.warnings for report in asyncio.run(course())] == [("vqcore.pack: they take turns",), ()]


def test_an_epoch_begins_when_every_member_has_asked_or_left(job: Job) -> None:
    registered = dict(ESTIMATORS), dict(ARCHITECTURES)

    async def course() -> list[int]:
        host = PackHost()
        a, b, late = job("a"), job("b"), job("late", epochs=1)
        first = await asyncio.gather(
            host.step(a, 0, 1, *registered), host.step(b, 0, 2, *registered), host.step(late, 0, 3, *registered)
        )
        waiting = asyncio.ensure_future(host.step(a, 1, 1, *registered))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "the epoch began without b, which has not asked yet"
        await host.leave("b", 1)  # of an earlier visit: a word that came late
        assert not waiting.done()
        await host.leave("b", 2)
        return [one.epoch for one in [*first, await waiting]]

    assert asyncio.run(course()) == [1, 1, 1, 2]
