"""What the journals say of a trained model: the training that made it, and those of other seeds."""

import filecmp
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.journal import RunRecord, TrialRecord, read
from trainables.models import MODEL
from trainables.runs import JOURNAL
from vqcore.config import TrialConfig, read_toml
from vqcore.errors import ConfigError


@dataclass(frozen=True)
class TrainingRecord:
    """A full training, as far as the epoch whose weights the model has."""

    run: RunRecord
    trial: TrialRecord
    config: TrialConfig
    """The model's own; its ``epochs`` are those that the model was trained for."""

    @property
    def epoch(self) -> int:
        """The epoch after which the model was kept."""
        return self.config.training.epochs

    @property
    def metrics(self) -> dict[str, float]:
        """Of the model, on the whole test set."""
        return self.trial.epochs[self.epoch]

    @property
    def params(self) -> dict[str, Any]:
        """The data set: ``data``, ``data_hash``, ``image_size``, ``train_images``, ``test_images``."""
        found: dict[str, Any] = self.run.sweep.get("params", {})
        return found

    @property
    def origin(self) -> dict[str, Any]:
        """The export that the configuration comes from: ``sweep``, ``name``, ``export``, ``seeds``, ``evidence``."""
        found: dict[str, Any] = self.run.sweep.get("origin") or {}
        return found

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest MSE, the last of equals, among those up to the model's own."""
        epochs = [epoch for epoch in self.trial.epochs if epoch <= self.epoch]
        return min(epochs, key=lambda epoch: (self.trial.epochs[epoch]["mse"], -epoch))

    def by_seed(self, folder: Path) -> dict[int, dict[str, float]]:
        """Metrics after this epoch of every seed of this configuration, on these images, by the journals of ``folder``.

        A seed that trained in another precision is left out; of two trainings of a seed the first by name counts, of
        this seed its own.
        """
        identity = self._identity(self.trial, self.params)
        found = {self.config.training.seed: self.metrics}
        for journal in sorted(folder.glob(f"*/{JOURNAL}")):
            run = read(journal)
            for trial in run.trials.values():
                if self.epoch in trial.epochs and self._identity(trial, run.sweep.get("params", {})) == identity:
                    found.setdefault(int(trial.config["seed"]), trial.epochs[self.epoch])
        return dict(sorted(found.items()))

    @staticmethod
    def _identity(trial: TrialRecord, params: dict[str, Any]) -> tuple[str, Any] | None:
        """What trainings of one configuration have in common, whatever their seeds; None of one that is not known."""
        try:
            config = TrialConfig.from_flat(trial.config).replace(seed=0)
        except ConfigError:  # an estimator of somebody's own that is not registered here
            return None
        return config.key(str(params.get("data_hash"))), trial.info.get("precision")


def training_of(folder: Path) -> TrainingRecord | None:
    """The training of the model in ``folder``: by the journal there, or by that of a full training with an equal model.

    None if none records it. ``ConfigError`` if the model's configuration cannot be read.
    """
    config = TrialConfig.from_toml(read_toml((folder / MODEL).with_suffix(".toml")))
    equal = (
        path.parent
        for path in sorted(finals(folder).glob(f"*/{MODEL}"))
        if path.parent != folder and filecmp.cmp(path, folder / MODEL, shallow=False)
    )
    for place in (folder, *equal):
        run = read(place / JOURNAL)
        trial = run.trials.get(config.key(str(run.sweep.get("params", {}).get("data_hash"))))
        if trial is not None and config.training.epochs in trial.epochs:
            return TrainingRecord(run, trial, config)
    return None


def finals(folder: Path) -> Path:
    """The folder of all full trainings beside the run in ``folder``, itself one or made of one: ``<out>/final``."""
    return folder.absolute().parent.parent / "final"
