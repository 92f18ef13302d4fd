"""A pack's members end as they would have alone, whoever trains beside them."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vqcore.config import TrialConfig, meaningless
from vqcore.errors import DivergedError
from vqcore.pack import Member, Pack
from vqcore.registry import ARCHITECTURES, ESTIMATORS, Architecture, estimator
from vqcore.sizes import shape
from vqcore.stacked import Stacked
from vqcore.training import Images, Trainer

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=12, residual_channels=6, dim=8, codebook_size=32, batch_size=16, precision="fp32",
    learning_rate=1e-3, decay=0.9,
)  # fmt: skip
DIFFERENT = [
    {"commitment_weight": 0.1},
    {"commitment_weight": 2.0, "seed": 1},
    {"estimator": "ste", "learning_rate": 1e-4},
    {"estimator": "gumbel"},
    {"decay": 0.99, "revive_below": 0.1},
    {"init": "kmeans++"},
    {"codebook": "gradient", "nu": 0.5},
    {"codebook": "gradient", "alternate": True},
    {"normalize": "cosine"},
]
NOTHING = meaningless({**SMALL.flat(), "layer": "fsq"})
"""Of fields that a grid does not have, the values that they must then have."""


@pytest.fixture(scope="module")
def sets(pictures: Callable[[int, int], np.ndarray]) -> tuple[Images, Images]:
    return Images(pictures(64, 0), torch.device("cpu")), Images(pictures(24, 1), torch.device("cpu"))


def alone(config: TrialConfig, sets: tuple[Images, Images], epochs: int) -> dict[str, float]:
    """The metrics of a trainer of this process's own, after so many epochs."""
    torch.manual_seed(0)
    trainer = Trainer(config)
    for _ in range(epochs):
        trained, tested = trainer.train_epoch(sets[0]), trainer.evaluate(sets[1])
    return tested | {f"train_{name}": value for name, value in trained.items()}


def packed(pack: Pack, members: list[Member], sets: tuple[Images, Images]) -> list[dict[str, float]]:
    """An epoch of each member, and its metrics."""
    trained, tested = pack.train_epoch(members, sets[0]), pack.evaluate(members, sets[1])
    found = []
    for before, after in zip(trained, tested, strict=True):
        assert isinstance(before, dict), before
        assert isinstance(after, dict), after
        found.append(after | {f"train_{name}": value for name, value in before.items()})
    return found


GRIDS = [{"layer": "fsq", "levels": "4,4,3", **NOTHING, "seed": seed} for seed in (0, 1)]


@pytest.mark.parametrize("changes", [DIFFERENT, GRIDS], ids=["codebooks", "grids"])
def test_every_member_ends_its_epoch_as_it_would_have_alone(
    sets: tuple[Images, Images], changes: list[dict[str, Any]]
) -> None:
    configs = [SMALL.replace(**own) for own in changes]
    for config, metrics in zip(configs, packed(Pack(), [Member(config) for config in configs], sets), strict=True):
        assert metrics == pytest.approx(alone(config, sets, 1), rel=1e-5), config


def test_members_come_go_and_resume_between_epochs(sets: tuple[Images, Images]) -> None:
    first, second, late = (SMALL.replace(seed=seed, estimator="gumbel") for seed in range(3))
    pack, members = Pack(), [Member(first), Member(second)]
    packed(pack, members, sets)
    state = {name: tensor.clone() for name, tensor in members[1].state().items()}
    resumed = Member(second)
    resumed.load_state(state)
    one, two, three = packed(pack, [Member(late), resumed, members[0]], sets)
    assert one == pytest.approx(alone(late, sets, 1), rel=1e-5)
    assert two == pytest.approx(alone(second, sets, 2), rel=1e-5)
    assert three == pytest.approx(alone(first, sets, 2), rel=1e-5)


def test_a_member_alone_trains_to_the_last_bit_as_without_a_pack(sets: tuple[Images, Images]) -> None:
    config = SMALL.replace(estimator="gumbel")
    assert packed(Pack(), [Member(config)], sets) == [alone(config, sets, 1)]


@pytest.fixture
def broken() -> Iterator[str]:
    """An estimator whose gradient is no number from its second step on, as a division by zero would make it."""
    calls = []

    @estimator("broken")
    def gradient(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
        calls.append(1)
        return g_ND * (1.0 if len(calls) < 2 else torch.nan)

    yield "broken"
    del ESTIMATORS["broken"]


def test_a_member_that_diverges_touches_no_other(sets: tuple[Images, Images], broken: str) -> None:
    others = [SMALL.replace(seed=seed) for seed in (1, 2)]
    pack, members = Pack(), [Member(config) for config in (others[0], SMALL.replace(estimator=broken), others[1])]
    before, failure, after = pack.train_epoch(members, sets[0])
    assert isinstance(failure, DivergedError)
    whole = Pack().train_epoch([Member(config) for config in (others[0], SMALL, others[1])], sets[0])
    assert [before, after] == [whole[0], whole[2]]


class Normed(nn.Sequential):
    """A network with statistics of its own, as batch normalisation keeps them."""

    def __init__(self, source: int, target: int, up: bool) -> None:
        # without a bias, whose gradient is the rounding of 0 before a normalisation, and which Adam makes large
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        super().__init__(kind(source, target, 4, 4, bias=False), nn.BatchNorm2d(target))


class Choosy(Normed):
    """A network whose way depends on its numbers, which no ``vmap`` takes."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y if float(y.detach().mean()) < 1e9 else -y


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[str]:
    network = request.param
    ARCHITECTURES["own"] = Architecture(
        lambda config: network(3, config.quantizer.dim, False), lambda config: network(config.quantizer.dim, 3, True), 4
    )
    yield "own"
    del ARCHITECTURES["own"]


@pytest.mark.parametrize("own", [Normed, Choosy], indirect=True)
def test_networks_of_ones_own_train_in_a_pack_or_take_turns(
    sets: tuple[Images, Images], own: str, caplog: pytest.LogCaptureFixture
) -> None:
    configs = [SMALL.replace(architecture=own, seed=seed) for seed in (0, 1)]
    with caplog.at_level(logging.WARNING):
        found = packed(Pack(), [Member(config) for config in configs], sets)
    for config, metrics in zip(configs, found, strict=True):
        assert metrics == pytest.approx(alone(config, sets, 1), rel=1e-5)
    assert "cannot run as one" in caplog.text or ARCHITECTURES[own].encoder(SMALL.model).__class__ is Normed


class Trained(Normed):
    """A network that only in training goes a way that no ``vmap`` takes."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y if not self.training or float(y.detach().mean()) < 1e9 else -y


class Masked(Normed):
    """A network with numbers of its own that torch does not know."""

    def __init__(self, source: int, target: int, up: bool) -> None:
        super().__init__(source, target, up)
        self.mask = torch.randn(target, 1, 1).sign()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y * self.mask


class Named(Normed):
    """A network whose parameters have other names in each model."""

    made = 0

    def __init__(self, source: int, target: int, up: bool) -> None:
        super().__init__(source, target, up)
        Named.made += 1
        self.add_module(f"last{Named.made}", nn.Conv2d(target, target, 1, bias=False))


@pytest.mark.parametrize("own", [Trained, Masked, Named], indirect=True)
def test_networks_that_are_not_one_take_turns_and_say_so_once(
    sets: tuple[Images, Images], own: str, caplog: pytest.LogCaptureFixture
) -> None:
    configs = [SMALL.replace(architecture=own, seed=seed) for seed in (0, 1)]
    pack, members = Pack(), [Member(config) for config in configs]
    for epochs in (1, 2):
        for config, metrics in zip(configs, packed(pack, members, sets), strict=True):
            assert metrics == alone(config, sets, epochs)
    assert caplog.text.count("cannot run as one") == 1


class Dropping(Normed):
    """A network that draws by chance."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.dropout(super().forward(x), 0.5, self.training)


@pytest.mark.parametrize("own", [Dropping], indirect=True)
def test_a_member_alone_whose_network_draws_resumes_to_the_last_bit(sets: tuple[Images, Images], own: str) -> None:
    config = SMALL.replace(architecture=own)
    first, resumed = Member(config), Member(config)
    packed(Pack(), [first], sets)
    torch.manual_seed(1)  # as others' draws would leave the process
    resumed.load_state(first.state())
    assert packed(Pack(), [resumed], sets) == [alone(config, sets, 2)]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_pack_computes_in_the_precision_of_its_members(sets: tuple[Images, Images], precision: str) -> None:
    members, batch = [Member(SMALL.replace(precision=precision, seed=seed)) for seed in (0, 1)], sets[1].batch(slice(8))
    with torch.no_grad(), members[0].autocast():
        together = Stacked([member.model.encoder for member in members])(batch, shared=True)
        for found, member in zip(together, members, strict=True):
            own = member.model.encoder(batch)
            assert found.dtype == own.dtype
            assert float((found - own).abs().max()) <= 4 * torch.finfo(own.dtype).eps * float(own.abs().max())


def test_in_bf16_members_go_on_in_a_pack_from_where_they_were_alone(sets: tuple[Images, Images]) -> None:
    configs = [SMALL.replace(precision="bf16", seed=seed) for seed in (0, 1)]
    members = [Member(config) for config in configs]
    for member in members:
        member.train_epoch(sets[0])
    for config, metrics in zip(configs, packed(Pack(), members, sets), strict=True):
        # Adam's fused step takes moments in memory's order: in another layout than the weights' they would be others'
        assert metrics["mse"] == pytest.approx(alone(config, sets, 2)["mse"], rel=1e-3)


def test_what_shapes_a_model_is_told_from_what_does_not() -> None:
    assert len({shape(SMALL.replace(**changes)) for changes in DIFFERENT}) == 1
    for changes in ({"codebook_size": 64}, {"channels": 16}, {"batch_size": 8}, {"precision": "bf16"}):
        assert shape(SMALL.replace(**changes)) != shape(SMALL)


@pytest.mark.gpu
def test_on_a_gpu_a_pack_is_one_graph_and_its_members_end_as_alone(pictures: Callable[[int, int], np.ndarray]) -> None:
    cuda = torch.device("cuda")
    images = Images(pictures(128, 0), cuda)  # eight steps: three to rehearse, then a graph
    changes = [{}, {"estimator": "ste", "commitment_weight": 2.0}, {"decay": 0.99, "learning_rate": 1e-4}]
    configs = [SMALL.replace(**own) for own in changes]
    members, pack = [Member(config, cuda) for config in configs], Pack()
    first = members[0].train_epoch(images)  # a graph of its own, which its place in the pack makes void
    together = [pack.train_epoch(members, images), pack.train_epoch(members, images)]
    last = members[0].train_epoch(images)
    for place, config in enumerate(configs):
        alone = Trainer(config, cuda, graphed=False)
        own = [first, *(found[place] for found in together), last] if place == 0 else [one[place] for one in together]
        for metrics in own:
            assert metrics == pytest.approx(alone.train_epoch(images), rel=1e-3)
