"""Adam (Kingma & Ba 2015, algorithm 1), by PyTorch's fused kernel, its state in plain sight.

Equal to ``torch.optim.Adam(fused=True)`` to the last bit; a test holds it. Constructing that one imports torch's
compiler, which costs every trial's process 0.7 s and 80 MB that training never uses.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


class Adam:
    """Minimises by the gradients that are in ``parameters`` at each ``step``; those without one stay as they are."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        # in the parameters' own memory layout: vectorised arithmetic may round differently in another
        self.exp_avgs = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters]
        self.exp_avg_sqs = [torch.zeros_like(m, memory_format=torch.preserve_format) for m in self.exp_avgs]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr m̂ / (√v̂ + ε)."""
        moving = [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]
        steps = [self.steps[i] for i in moving]
        torch._foreach_add_(steps, 1)
        torch.ops.aten._fused_adam_(
            [self.parameters[i] for i in moving],
            [self.parameters[i].grad for i in moving],
            [self.exp_avgs[i] for i in moving],
            [self.exp_avg_sqs[i] for i in moving],
            [],
            steps,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    @torch.no_grad()
    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Start the moments of ``rows`` (a mask) of ``parameter``, if it is here, anew: the values were replaced."""
        keep = (~rows).to(parameter.dtype).view(-1, *[1] * (parameter.ndim - 1))
        for number, own in enumerate(self.parameters):
            if own is parameter:
                self.exp_avgs[number] *= keep
                self.exp_avg_sqs[number] *= keep

    def state(self) -> dict[str, Tensor]:
        """The moments and step counts, live, as ``<parameter's number>.<name>``."""
        named = {"exp_avg": self.exp_avgs, "exp_avg_sq": self.exp_avg_sqs, "step": self.steps}
        return {f"{number}.{name}": tensor for name, tensors in named.items() for number, tensor in enumerate(tensors)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy in what ``state`` gave. ``KeyError`` or ``RuntimeError`` if it is of other parameters."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
