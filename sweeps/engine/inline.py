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
        trial, goes_on = None, True
        while goes_on:
            try:
                trial = trial or Trial.open(job, recorded)
                report = trial.step()
            except FatalRunError:
                raise
            except Exception as error:
                driver.broke_off(key, error)
                break
            goes_on = driver.decide(key, report)
            driver.record(key, report)  # an error of the journal is no trial's
