"""The optimiser beside PyTorch's own."""

import subprocess
import sys

import pytest
import torch

from vqcore.adam import Adam


def parameters() -> list[torch.Tensor]:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return [*conv.parameters(), torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(()))]


def test_equals_torchs_fused_adam_to_the_last_bit() -> None:
    ours, theirs = parameters(), parameters()
    mine, reference = Adam(ours, 3e-3), torch.optim.Adam(theirs, 3e-3, fused=True)
    for step in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.sin(a.detach() * (step + 1))
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), step


def test_the_formula() -> None:
    (p,) = ours = [torch.nn.Parameter(torch.tensor([1.0, -2.0]))]
    optimizer, m, v, x = Adam(ours, 0.1), torch.zeros(2), torch.zeros(2), torch.tensor([1.0, -2.0])
    for t in range(1, 6):
        g = torch.tensor([0.3, -4.0]) * t
        p.grad = g.clone()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(p.detach(), x)


def test_a_parameter_without_a_gradient_stays() -> None:
    ours = parameters()
    before = [p.detach().clone() for p in ours]
    optimizer = Adam(ours, 0.1)
    ours[2].grad = torch.ones_like(ours[2])
    optimizer.step()
    assert [torch.equal(p, old) for p, old in zip(ours, before, strict=True)] == [True, True, False, True]
    optimizer.zero_grad()
    assert ours[2].grad is None


def test_state_is_copied_in_and_checked() -> None:
    ours, other = parameters(), parameters()
    first, second = Adam(ours, 0.1), Adam(other, 0.1)
    for p in ours:
        p.grad = torch.ones_like(p)
    first.step()
    second.load_state(first.state())
    for p in ours:
        p.grad = torch.ones_like(p)
    before = {name: tensor.clone() for name, tensor in second.state().items()}
    first.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.state().items()), "not shared"
    with pytest.raises(KeyError):
        second.load_state({})


def test_training_never_imports_the_compiler() -> None:
    program = (
        "import sys, numpy as np, torch; from vqcore.training import Images, Trainer; from vqcore import TrialConfig;"
        "t = Trainer(TrialConfig().replace(batch_size=4, channels=4, hidden_channels=8));"
        "t.train_epoch(Images(np.zeros((8, 8, 8, 3), np.uint8), torch.device('cpu'))); t.state();"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
