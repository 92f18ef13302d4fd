"""A training step as one CUDA graph: a small model's step on a GPU is mostly launches, and a graph is launched once.

Written from torch's notes on CUDA graphs, and not yet seen on a GPU.
"""

import logging
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

WARM_UP = 3
"""Steps before the recording: libraries choose their kernels, the optimiser makes its moments."""

logger = logging.getLogger(__name__)


class CapturedStep:
    """Calls ``step`` with a static tensor of indices: some times as it is, then, once recorded, as one CUDA graph.

    Whatever ``step`` reads and writes must stay at its address from call to call, and what it decides on the host is
    decided once. Every call is one step, the first ones too; recording computes nothing. A step that cannot be a graph
    (it waits for the GPU, draws on the host, or its recording fails) stays as it is, and one line in the log says why.
    """

    def __init__(self, step: Callable[[Tensor], object], index: Int[Tensor, "..."]) -> None:
        """Calls will be with indices of the shape and on the device of ``index``."""
        self._step, self._index = step, index.clone()
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.refused = ""
        """Why the step is no graph; empty while it may be one."""
        if not index.is_cuda:
            self._refuse(f"there are none on the device {index.device.type!r}")

    @property
    def recorded(self) -> bool:
        """Whether calls launch a graph."""
        return self._graph is not None

    def __call__(self, index: Int[Tensor, "..."]) -> None:
        """One step."""
        self._index.copy_(index)
        if self._calls == WARM_UP and not self.refused:
            self._record()
        self._calls += 1
        if self._graph is not None:
            self._graph.replay()
        elif self.refused:
            self._step(self._index)
        else:
            self._rehearse()

    def _rehearse(self) -> None:
        """A step on another stream, as a recording wants it; the last looks for what a graph could not hold."""
        here, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        random = torch.get_rng_state()
        side.wait_stream(here)
        with warnings.catch_warnings(record=True) as caught, torch.cuda.stream(side):
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self._step(self._index)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        here.wait_stream(side)
        if self._calls < WARM_UP:  # the first steps may do what later ones do not: k-means++ starts a codebook
            return
        if any("synchronizing CUDA operation" in str(warning.message) for warning in caught):
            self._refuse("it waits for the GPU")
        elif not torch.equal(random, torch.get_rng_state()):
            self._refuse("it draws random numbers on the host, and a graph would repeat them")

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._step(self._index)
        except RuntimeError as error:  # out of memory among them: a graph keeps its own
            self._refuse(str(error).partition("\n")[0])
        else:
            self._graph = graph

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        logger.warning("the training step is not run as a CUDA graph: %s", reason)
