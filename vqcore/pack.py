"""Many models of one shape trained side by side as one: for a GPU, which a single small model leaves idle.

Members are of one shape (``vqcore.sizes.shape``). Their encoders run as one network, and so do their decoders: the
parameters are stacked, and ``torch.func`` maps the forward pass over them, which makes of M convolutions one grouped
convolution. The layer between them stays each member's own module with its own optimiser: so estimator, commitment
weight, decay, seed and learning rate may differ, and a member that diverges touches no other. Shapes: M members,
batches of B images.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vqcore.config import TrialConfig
from vqcore.errors import DivergedError
from vqcore.quantizers import Quantized
from vqcore.training import EVALUATION_BATCH, FINITE_CHECK_STEPS, Images, Tally, Trainer, diverged

T = TypeVar("T")
Metrics = dict[str, float]

CERTAIN = ("ste", "rotation", "rotation_unscaled", "reflection")
"""Estimators that draw nothing by chance."""
_GENERATORS = ("generator.cpu", "generator.cuda")
"""Their names in a trainer's state."""

logger = logging.getLogger(__name__)


class Member(Trainer):
    """A trainer that may train in a pack: it draws from generators of its own, as if it were alone in its process."""

    def __init__(self, config: TrialConfig, device: torch.device | str = "cpu") -> None:
        super().__init__(config, device)
        self._generators = _seeded(self.device)
        codes = config.model.quantizer
        self._draws = codes.estimator not in CERTAIN or codes.revive_below > 0 or codes.init == "kmeans++"

    @contextmanager
    def generators(self) -> Iterator[None]:
        """Meanwhile the process draws from this member's generators; nothing for one that draws nothing."""
        if not self._draws:
            yield
            return
        before = _generators(self.device)
        _set_generators(self.device, self._generators)
        try:
            yield
        finally:
            self._generators = _generators(self.device)
            _set_generators(self.device, before)

    def train_epoch(self, images: Images) -> Metrics:
        """As ``Trainer``'s: alone."""
        with self.generators():
            return super().train_epoch(images)

    def state(self) -> dict[str, Tensor]:
        """As ``Trainer``'s."""
        return {**super().state(), **dict(zip(_GENERATORS, self._generators, strict=False))}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """As ``Trainer``'s."""
        before = _generators(self.device)
        super().load_state(state)
        self._generators = _generators(self.device)
        _set_generators(self.device, before)


class Pack:
    """Members of one shape on one device that train and are evaluated together; they may change between epochs."""

    def __init__(self) -> None:
        self._fused: _Fused | None = None

    def train_epoch(self, members: Sequence[Member], images: Images) -> list[Metrics | Exception]:
        """An epoch of each member, each in its own order of ``images``: its metrics, or why it cannot go on."""
        fused = self._of(members, images)
        if fused is None:
            return [outcome(partial(member.train_epoch, images)) for member in members]
        return fused.train_epoch(images)

    def evaluate(self, members: Sequence[Member], images: Images) -> list[Metrics | Exception]:
        """Metrics of each member over all of ``images``, or why there are none. Changes no state."""
        fused = self._of(members, images)
        if fused is None:
            return [outcome(partial(member.evaluate, images)) for member in members]
        return fused.evaluate(images)

    def _of(self, members: Sequence[Member], images: Images) -> "_Fused | None":
        """The members as one model; None where they train one after another: a single one, or networks that no
        ``vmap`` takes."""
        if self._fused is not None and self._fused.members != list(members):
            self._fused = None
        if self._fused is None and len(members) > 1:
            fused = _Fused(members)
            try:
                fused.try_out(images)
                self._fused = fused
            except Exception as error:  # whatever torch says of a network of the user's own
                name, why = members[0].config.model.architecture, f"{type(error).__name__}: {error}"
                logger.warning("architecture %r cannot run as one of many, its trials take turns: %s", name, why)
        return self._fused


class Stacked:
    """One network of several: all parameters of a name in one tensor, of which each network's own are views."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._skeleton = copy.deepcopy(networks[0]).to("meta")
        self._own = [dict(network.named_parameters()) for network in networks]
        buffers = [dict(network.named_buffers()) for network in networks]
        self.parameters = {name: part.requires_grad_() for name, part in _stack(self._own).items()}
        self.buffers = _stack(buffers)

    def __call__(self, inputs: Tensor, shared: bool = False) -> Tensor:
        """(M, B, ...) inputs, or (B, ...) ones that all networks share, to (M, B, ...) outputs."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            out: Tensor = torch.func.functional_call(self._skeleton, (parameters, buffers), (batch,))
            return out

        mapped = torch.func.vmap(one, in_dims=(0, 0, None if shared else 0), randomness="different")
        outputs: Tensor = mapped(self.parameters, self.buffers, inputs)
        return outputs

    def hand_out_gradients(self) -> None:
        """Give each network its share of the gradients of the stacked parameters, which have none then."""
        for name, parameter in self.parameters.items():
            gradient, parameter.grad = parameter.grad, None
            shares = [None] * len(self._own) if gradient is None else gradient.unbind()
            for own, share in zip(self._own, shares, strict=True):
                own[name].grad = share

    def train(self, mode: bool) -> None:
        """As ``nn.Module.train``."""
        self._skeleton.train(mode)


class _Fused:
    """Members as one model."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self._encoder = Stacked([member.model.encoder for member in members])
        self._decoder = Stacked([member.model.decoder for member in members])

    @torch.no_grad()
    def try_out(self, images: Images) -> None:
        """Run both networks on an image, without a change of state. Raises what torch says of them."""
        self._mode(training=False)
        latents = self._encoder(images.batch(slice(0, 1)), shared=True)
        self._decoder(latents)

    def train_epoch(self, images: Images) -> list[Metrics | Exception]:
        """As ``Pack``'s."""
        self._mode(training=True)
        epoch = _Pass(self.members)
        for step, order in enumerate(zip(*(member.training_batches(images) for member in self.members), strict=True)):
            batch = torch.stack([images.batch(index) for index in order])
            losses = self._step(batch, epoch)
            if step % FINITE_CHECK_STEPS == 0:
                epoch.check(losses, step)
        epoch.check(losses, step)
        return epoch.outcomes(Trainer.trained)

    @torch.no_grad()
    def evaluate(self, images: Images) -> list[Metrics | Exception]:
        """As ``Pack``'s."""
        self._mode(training=False)
        test = _Pass(self.members)
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images.batch(slice(start, start + EVALUATION_BATCH))
            with self.members[0].autocast():
                latents = self._encoder(batch, shared=True)
                quantized = test.quantize(latents.unbind())
                reconstructions = self._decoder(torch.stack([each.quantized for each in quantized]))
            test.count(_squares(reconstructions, batch), batch.numel(), quantized)
        return test.outcomes(Trainer.evaluated)

    def _step(self, batch_MBCHW: Tensor, epoch: "_Pass") -> Tensor:
        """A training step of every member; the loss of each, (M,).

        Backward in three parts, decoders, layers, encoders: what one member's layer does there is its own affair.
        """
        with self.members[0].autocast():
            latents = self._encoder(batch_MBCHW)
            inputs = [own.detach().requires_grad_() for own in latents]
            quantized = epoch.quantize(inputs)
            codes = torch.stack([each.quantized.detach() for each in quantized]).requires_grad_()
            reconstructions = self._decoder(codes)
        squares_M = _squares(reconstructions, batch_MBCHW)
        values = batch_MBCHW[0].numel()
        for member in self.members:
            member.optimizers["optimizer"].zero_grad()
        # a sum: no member's gradient depends on another's loss, be that no number
        torch.autograd.backward(squares_M.sum() / values)
        assert codes.grad is not None
        torch.autograd.backward(latents, torch.stack(epoch.cross(quantized, codes.grad, inputs)))
        self._encoder.hand_out_gradients()
        self._decoder.hand_out_gradients()
        for place, member in enumerate(self.members):
            if place not in epoch.failed:
                member.descend(member.optimizers["optimizer"])
        with torch.no_grad():
            epoch.count(squares_M, values, quantized)
            return squares_M / values + torch.stack([each.loss for each in quantized])

    def _mode(self, training: bool) -> None:
        for network in (self._encoder, self._decoder):
            network.train(training)
        for member in self.members:
            member.model.train(training)


class _Pass:
    """One pass of all members over a set of images: what is counted, and who fell out."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._tallies = [Tally(member.model, member.device) for member in members]
        self.failed: dict[int, Exception] = {}
        """Why members cannot go on, by their places. Their networks go along until the pass ends, untrained."""

    def quantize(self, latents: Sequence[Tensor]) -> list[Quantized]:
        """Each member's latents by its own layer; zeros for those that fell out."""
        return [self._quantized(place, own) for place, own in enumerate(latents)]

    def _quantized(self, place: int, latents: Tensor) -> Quantized:
        member = self._members[place]
        where = f"in epoch {member.epoch + 1}" if member.model.training else f"after epoch {member.epoch}"
        if place not in self.failed:
            with self._own(place), member.generators(), diverged(where):
                return member.quantize(latents)
        indices = latents.new_zeros((latents.shape[0], *latents.shape[2:]), dtype=torch.int64)
        none = latents.new_zeros((), dtype=torch.float32)
        return Quantized(torch.zeros_like(latents), indices, none, none, none)

    def cross(self, quantized: Sequence[Quantized], at_codes: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of each member's latents, by its own layer, from that of its codes; zeros of those that fell
        out."""
        for place, (own, gradient) in enumerate(zip(quantized, at_codes, strict=True)):
            if place in self.failed:
                continue
            # the gradient of a scalar is 1; a layer that learns nothing has no loss to go back from
            ends, gradients = [own.quantized], [gradient]
            if own.loss.requires_grad:
                ends, gradients = [*ends, own.loss], [*gradients, torch.ones_like(own.loss)]
            with self._own(place):
                torch.autograd.backward(ends, gradients)
        return [torch.zeros_like(one) if one.grad is None else one.grad for one in inputs]

    @contextmanager
    def _own(self, place: int) -> Iterator[None]:
        """What is raised within, by an estimator of the user's own say, is that member's alone; but for memory."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.failed[place] = error

    def count(self, squares_M: Tensor, values: int, quantized: Sequence[Quantized]) -> None:
        """Take in a batch: the sum of each member's squared errors, over so many values."""
        for tally, squares, own in zip(self._tallies, squares_M.detach(), quantized, strict=True):
            tally.update(squares, values, own)

    def check(self, losses_M: Tensor, step: int) -> None:
        """Find out who has diverged: of a GPU seldom asked, since it waits."""
        for place, loss in enumerate(losses_M.tolist()):
            if place not in self.failed and not math.isfinite(loss):
                epoch = self._members[place].epoch + 1
                self.failed[place] = DivergedError(f"loss is {loss} in epoch {epoch}, step {step + 1}")

    def outcomes(self, metrics: Callable[[Trainer, Tally], Metrics]) -> list[Metrics | Exception]:
        """Of each member, its metrics or why it cannot go on."""
        return [
            self.failed[place] if place in self.failed else metrics(member, tally)
            for place, (member, tally) in enumerate(zip(self._members, self._tallies, strict=True))
        ]


def _squares(reconstructions_MBCHW: Tensor, images: Tensor) -> Tensor:
    """The sum of each member's squared errors, (M,)."""
    return (reconstructions_MBCHW.float() - images).square().flatten(1).sum(1)


def _stack(networks: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of a name in one, whose parts they become."""
    stacked = {name: torch.stack([own[name].detach() for own in networks]) for name in networks[0]}
    for place, own in enumerate(networks):
        for name, tensor in own.items():
            tensor.data = stacked[name][place]
    return stacked


def outcome(work: Callable[[], T]) -> T | Exception:
    """What ``work`` returns, or the error that it raises."""
    try:
        return work()
    except Exception as error:
        return error


def _seeded(device: torch.device) -> list[Tensor]:
    """The states of generators that a trial begins with (``trainables.device.prepare_process``)."""
    kinds = ["cpu"] + (["cuda"] if device.type == "cuda" else [])
    return [torch.Generator(kind).manual_seed(0).get_state() for kind in kinds]


def _generators(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_generators(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
