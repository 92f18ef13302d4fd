"""A training as a trial of Ray Tune: a step is an epoch.

``VQTrial`` works in anyone's own ``tune.Tuner``, with Ray's schedulers, searchers and callbacks. Its configuration then
is flat: ``data``, ``preset``, ``image_size``, and any field of ``vqcore.config.TrialConfig``. Tune keeps and restores
its checkpoints, so PBT and ``Tuner.restore`` work as for every trainable.

In a sweep of this package the configuration holds a ``TrialJob`` instead. The trial then writes checkpoints of its own
after every epoch, named by their digests and kept where every node reaches them, and Tune keeps none. Where trials are
packed it holds the process of its pack too (``trainables.pack_host``), which trains and writes: this one only asks.

Torch is imported where a trial begins: the process that runs the ``Tuner`` needs this class, and no torch.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from trainables.carried_log import CarriedLog
from trainables.data import DataSet, ensure_local, prepare
from trainables.job import Report, TrialJob
from trainables.pack_host import PackDiedError
from trainables.storage import Store
from vqcore.config import PRESETS, TrainingConfig, TrialConfig
from vqcore.errors import ConfigError, DivergedError
from vqcore.registry import ARCHITECTURES, ESTIMATORS

if TYPE_CHECKING:
    from trainables.trial import Trial

Arrays = tuple[np.ndarray, np.ndarray]
"""Training and test images, (N, H, W, 3) uint8."""


class VQTrial(tune.Trainable):
    """One training of a VQ-VAE. Every column of ``results.parquet`` is in its results, ``bits_learned`` in those of a
    sweep that asks for it; ``training_iteration`` is the epoch, and ``done`` comes with the last one, which ``epochs``
    names."""

    def setup(self, config: dict[str, Any], arrays: Arrays | None = None) -> None:
        """Take a configuration; the model is made with the first step, so that its errors are the trial's.

        ``arrays`` are the images of a sweep on a cluster, for nodes that do not have the prepared data set.
        """
        self._arrays, self._log = arrays, CarriedLog()
        self._trial: Trial | None = None
        self._recorded: int | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the actor, with its imports and its GPU context, go on with another trial."""
        self.config, self._trial, self._recorded = new_config, None, None
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch and evaluate it. ``DivergedError`` where it is no number, but in a sweep, which records it."""
        report = self._ask_pack() if "pack" in self.config else self.trial.step()
        result: dict[str, Any] = {"training_iteration": report.epoch, "done": report.status != "running"}
        if "job" in self.config:  # its driver reads the report alone, and Tune would keep statistics of each metric
            return {**result, "report": replace(report, warnings=report.warnings + self._log.take())}
        if report.status == "diverged":
            raise DivergedError(report.reason)
        return {**report.metrics, **result, "info": report.info}

    def _ask_pack(self) -> Report:
        """The next step, taken by the pack's process. ``PackDiedError`` if that has died; the trial's own errors."""
        config = self.config
        recorded = config["recorded"] if self._recorded is None else self._recorded
        words = config["job"], recorded, config["visit"], config["estimators"], config["architectures"]
        asked = config["pack"].step.remote(*words)
        try:
            report: Report = ray.get(asked)
        except RayTaskError as error:
            raise error.cause from error
        except (RayActorError, OutOfMemoryError) as error:  # the latter of a node: Ray ends processes then
            raise PackDiedError(f"the process of its pack died: {error}") from error
        self._recorded = report.epoch
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the state into a folder of Tune's, as one file; in a sweep, nothing: the trial has written it."""
        from trainables.checkpoint import save_checkpoint

        if "job" not in self.config:
            trainer = self.trial.trainer
            save_checkpoint(Store(checkpoint_dir), trainer.epoch, trainer.state(), self.trial.facts())

    def load_checkpoint(self, checkpoint: dict[str, Any] | str | None) -> None:
        """Go on from a state that ``save_checkpoint`` wrote, perhaps of a trial with another configuration (PBT).

        ``ConfigError`` if the file is damaged, or of a model with other shapes.
        """
        from trainables.checkpoint import whole_checkpoints

        if "job" in self.config:
            return
        damaged: list[str] = []
        found = next(whole_checkpoints(Store(str(checkpoint)), None, damaged), None)
        if found is None:
            raise ConfigError([f"{checkpoint}: holds no whole checkpoint ({'; '.join(damaged) or 'none at all'})"])
        self.trial.load(found)

    @property
    def trial(self) -> "Trial":
        """The training, made from the configuration when it is first wanted."""
        from trainables.trial import Trial  # first, since it registers our own estimators

        if self._trial is None and "job" in self.config:
            ESTIMATORS.update(self.config["estimators"])
            ARCHITECTURES.update(self.config["architectures"])
            self._trial = Trial.open(replace(self.config["job"], data=self.data_here()), self.config["recorded"])
        elif self._trial is None:
            self._trial = Trial(self._job())
        return self._trial

    def data_here(self) -> DataSet:
        """The prepared data set of a sweep as this node can open it, made from the sweep's arrays if need be."""
        job, arrays = self.config["job"], self._arrays
        return job.data if arrays is None else ensure_local(job.data, lambda: arrays)

    def _job(self) -> TrialJob:
        """A trial of anyone's own Tuner, from a flat configuration."""
        data = prepare(self.config.get("data", "cifar10-mini"), self.config.get("image_size"))
        config = trial_config(self.config)
        booked = getattr(self.trial_resources, "required_resources", {})
        cpus, gpus = float(booked.get("CPU", 1)), float(booked.get("GPU", 0))
        return TrialJob(config.key(data.hash), 0, config, data, "", cpus, gpus)


def trial_config(flat: Mapping[str, Any]) -> TrialConfig:
    """The configuration that a flat one of Tune's stands for, over the preset's. ``ConfigError`` with every problem."""
    preset = flat.get("preset", "compact")
    if preset not in PRESETS:
        raise ConfigError([f"preset = {preset!r}: there are {', '.join(PRESETS)}"])
    fields = {name: value for name, value in flat.items() if name not in ("data", "image_size", "preset")}
    # searchers of numpy's draw numbers of numpy's
    fields |= {name: value.item() for name, value in fields.items() if isinstance(value, np.generic)}
    return TrialConfig(PRESETS[preset], TrainingConfig()).replace(**fields)
