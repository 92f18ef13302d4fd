"""Images drawn from a prior: ``python -m trainables.samples PRIOR --count 64 --seed 1``."""

from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.text import Text

from trainables.commands import Terminal, run_command
from trainables.device import open_device
from trainables.generated import ACROSS, decoded, grid, round_robin, sample_codes
from trainables.models import PRIOR, find_prior
from vqcore.config import read_toml
from vqcore.errors import ConfigError
from vqcore.prior import load_prior


def main(
    prior: Annotated[str, tyro.conf.Positional],
    count: int = 64,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    label: str | None = None,
    to: Path | None = None,
    out: Path = Path("runs"),
) -> None:
    """Draw images from a prior, into one PNG; the same for the same arguments.

    Args:
        prior: A run of trainables.prior, by name or folder.
        count: How many images.
        seed: Of the draw.
        temperature: Divides the logits: under 1 the probable becomes more so, above 1 less.
        top_k: Only the k most probable codes at each position; 0 is all.
        label: Draw this class alone, by name or number, from a prior that was trained by class.
        to: The file; samples-<seed>.png in the prior's figures/ unless given.
        out: Folder of all runs.
    """
    if count < 1 or temperature <= 0 or top_k < 0:
        rule = "ask for 1 or more, at a temperature above 0, of the top 0 (all) or more"
        raise ConfigError([f"--count {count} --temperature {temperature:g} --top-k {top_k}: {rule}"])
    open_device(num_gpus=0)
    found = find_prior(prior, out)
    loaded, model = load_prior(found.folder / PRIOR), found.load()
    classes = read_toml((found.folder / PRIOR).with_suffix(".toml")).get("labels", {}).get("classes", [])
    labels = round_robin(count, len(classes)) if label is None else torch.full((count,), _number(label, classes))
    codes = sample_codes(loaded, count, labels, seed, temperature=temperature, top_k=top_k)
    path = to or found.folder / "figures" / f"samples-{seed}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(decoded(model, codes), min(count, ACROSS)).save(path)
    Terminal().print(Text(str(path)), soft_wrap=True)


def _number(label: str, classes: list[str]) -> int:
    if label in classes:
        return classes.index(label)
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    have = ", ".join(classes) if classes else "none: train the prior with --by-class"
    raise ConfigError([f"--label {label!r}: no such class of this prior; there are {have}"])


if __name__ == "__main__":
    run_command(main)
