"""A sweep in this process, a trial or a pack of them at a time: for machines without Ray, and for tests."""

from sweeps.engine.driver import Driver
from trainables.errors import FatalRunError
from trainables.pack import PackedTrial, TrialGroup
from trainables.trial import Trial


def run_inline(driver: Driver, packed: bool = False) -> None:
    """Train until no trial is left, or to the end of the epoch at which the run is asked to halt.

    An error ends its trial as ``failed``. ``KeyboardInterrupt`` passes through, as does what ends the run and no single
    trial: a full disk.
    """
    group = TrialGroup(PackedTrial if packed else Trial)
    while _fill(driver, group):
        for key, report in group.step().items():
            if isinstance(report, Exception):
                _broke_off(driver, key, report)
                continue
            if not driver.decide(key, report):
                group.leave(key)
            driver.record(key, report)  # an error of the journal is no trial's


def _fill(driver: Driver, group: TrialGroup) -> bool:
    """Give every free slot a trial; whether any trial has one."""
    while (key := driver.next()) is not None:
        job, recorded = driver.begin(key)
        try:
            group.open(job, recorded)
        except Exception as error:
            _broke_off(driver, key, error)
    return len(group) > 0


def _broke_off(driver: Driver, key: str, error: Exception) -> None:
    if isinstance(error, FatalRunError):
        raise error
    driver.broke_off(key, error)
