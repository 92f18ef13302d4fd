"""python -m benchmarks.sampling: what keeping keys and values saves when codes are drawn from a causal prior.

The same codes are drawn with ``Prior.sample`` and by running the network over the whole grid again for each code, in
turns, on one thread; process CPU time. With untrained weights, whose work is the same.
"""

import time
from pathlib import Path

import torch

from benchmarks.record import circumstances, write
from trainables.commands import Terminal, run_command
from trainables.device import open_device
from vqcore.prior import Causal, PriorConfig, make_prior
from vqcore.prior.drawing import draw

LEAST = 5.0
"""Times as fast as it is to be on a grid of 8 x 8."""


@torch.no_grad()
def again(prior: Causal, count: int, seed: int) -> torch.Tensor:
    """A sample without anything kept; positions that are not drawn yet hold code 0, which no logits depend on."""
    generator, config = torch.Generator().manual_seed(seed), prior.config
    codes = torch.zeros(count, config.rows, config.columns, dtype=torch.int64)
    for position in range(config.positions):
        codes.flatten(1)[:, position] = draw(prior(codes)[:, position], 1.0, 0, generator)
    return codes


def main(
    side: int = 8,
    codebook_size: int = 512,
    count: int = 16,
    rounds: int = 3,
    out: Path = Path("benchmarks/results/sampling.json"),
) -> None:
    """Measure both ways.

    Args:
        side: Codes along each side of the grid.
        codebook_size: K.
        count: Images in a batch.
        rounds: How often each way is measured; the fastest counts.
        out: Where the figures go.
    """
    facts = circumstances({"side": side, "codebook_size": codebook_size, "count": count, "rounds": rounds})
    open_device(num_cpus=1, num_gpus=0)
    prior = make_prior(PriorConfig(codebook_size=codebook_size, rows=side, columns=side)).eval()
    assert isinstance(prior, Causal)
    seconds: dict[str, list[float]] = {"kept": [], "again": []}
    equal = True
    for seed in range(rounds):
        drawn = {}
        for name in seconds:
            began = time.process_time()
            drawn[name] = prior.sample(count, seed=seed) if name == "kept" else again(prior, count, seed)
            seconds[name].append(time.process_time() - began)
        equal &= torch.equal(drawn["kept"], drawn["again"])
    kept, without = min(seconds["kept"]), min(seconds["again"])
    Terminal().print(
        f"{count} grids of {side} x {side}: {kept:.2f} s with keys and values kept, {without:.2f} s without: "
        f"{without / kept:.1f} times as fast (limit {LEAST:g}); codes equal: {equal}",
        soft_wrap=True,
    )
    write(
        out, {"ratio": without / kept, "limit": LEAST, "codes_equal": equal, "images_a_second": count / kept, **facts}
    )


if __name__ == "__main__":
    run_command(main)
