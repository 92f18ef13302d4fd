"""Learned rates of several priors together: ``python -m analysis.learned_rates PRIOR PRIOR ...``.

Of a model that was trained with several seeds, each with a prior of its own, mean and Student's interval are of the
whole way from images to bits; a report shows the seeds of a prior over one model.
"""

from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from analysis.priors import LearnedPrior, read_prior
from analysis.stats import Estimate
from trainables.commands import Terminal, run_command
from trainables.runs import find_run
from vqcore.errors import ConfigError


def main(priors: Annotated[list[str], tyro.conf.Positional], out: Path = Path("runs")) -> None:
    """Compare the rates of priors, and estimate their mean.

    Args:
        priors: Runs of trainables.prior, by name or folder; of one configuration, but for seeds and models.
        out: Folder of all runs.
    """
    problems: list[str] = []
    found = [read_prior(find_run(name, out), problems) for name in priors]
    problems += [f"{prior.folder}: has no learned rate; train it to its end, or name another" for prior in _idle(found)]
    problems += [f"{prior.folder}: differs in {name} from {found[0].folder}" for prior, name in _different(found)]
    if problems:
        raise ConfigError(problems)
    table = Table("prior", "entropy", "learned", "% under it, interval over test images", "epochs")
    learned, under = [], []
    for prior in found:
        assert prior.rates is not None
        assert prior.rates.under is not None
        percent, low, high = prior.rates.under
        learned.append(prior.rates.rows[-1].bits)
        under.append(percent)
        cells = f"{prior.rates.entropy:.2f}", f"{learned[-1]:.2f}", f"{percent:.1f} [{low:.1f}, {high:.1f}]"
        table.add_row(prior.folder.name, *cells, str(len(prior.curve("validation_bits"))))
    terminal = Terminal()
    terminal.print(table)
    bits, percent_under = Estimate.of(learned, 0.0), Estimate.of(under)
    terminal.print(
        f"Mean of {len(found)}: {bits.text} bits an image {bits.interval_text()}, {percent_under.text} % "
        f"{percent_under.interval_text()} under the unigram entropy.",
        soft_wrap=True,
    )


_FREE = ("seed", "model", "best_epoch")
"""What may differ."""


def _different(priors: list[LearnedPrior]) -> list[tuple[LearnedPrior, str]]:
    """Each field of each prior that is not as the first one's."""
    first = priors[0].config
    names = sorted({name for prior in priors for name in prior.config} - {*_FREE})
    return [(prior, name) for prior in priors for name in names if prior.config.get(name) != first.get(name)]


def _idle(priors: list[LearnedPrior]) -> list[LearnedPrior]:
    return [prior for prior in priors if prior.rates is None or prior.rates.under is None]


if __name__ == "__main__":
    run_command(main)
