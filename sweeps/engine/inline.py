"""A sweep in this process, one trial at a time: for machines without Ray, and for tests."""

from sweeps.engine.driver import Driver
from trainables.errors import FatalRunError
from trainables.trial import Trial


def run_inline(driver: Driver) -> None:
    """Train until no trial is left, or to the end of the epoch at which the run is asked to halt.

    An error ends its trial as ``failed``. ``KeyboardInterrupt`` passes through, as does what ends the run and no single
    trial: a full disk.
    """
    while (key := driver.next()) is not None:
        job, recorded = driver.begin(key)
        try:
            trial, goes_on = Trial.open(job, recorded), True
            while goes_on:
                report = trial.step()
                goes_on = driver.decide(key, report)
                driver.record(key, report)
        except FatalRunError:
            raise
        except Exception as error:
            driver.broke_off(key, error)
