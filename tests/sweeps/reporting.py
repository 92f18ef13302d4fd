"""Trials that only report, so that many take no time."""

import math

from trainables.job import Report, TrialJob


def metrics(job: TrialJob, epoch: int) -> dict[str, float]:
    """As if: both objectives depend on beta and decay, and on the seed a little."""
    quantizer, seed = job.config.model.quantizer, job.config.training.seed
    off = (math.log(quantizer.commitment_weight) / 3) ** 2 + (quantizer.decay - 0.9) ** 2 * 20 + 0.01 * seed
    perplexity = quantizer.codebook_size / (1 + off)
    told = dict.fromkeys(("usage", "loss", "codebook_loss", "commitment_loss"), 0.5)
    return {**told, "mse": (0.1 + off) / epoch, "perplexity": perplexity, "bits": 16 * math.log2(perplexity)}


class Reporting:
    """A trial that trains nothing."""

    def __init__(self, job: TrialJob, recorded: int) -> None:
        self.job, self.epoch = job, recorded

    @classmethod
    def open(cls, job: TrialJob, recorded: int) -> "Reporting":
        return cls(job, recorded)

    def step(self) -> Report:
        info, last = {"parameters": 1}, self.job.config.training.epochs
        if self.epoch == last:
            return Report(last, status="completed", info=info)
        self.epoch += 1
        status = "completed" if self.epoch == last else "running"
        return Report(self.epoch, metrics(self.job, self.epoch), 1.0, status, info=info)
