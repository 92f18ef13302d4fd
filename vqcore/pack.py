"""Many models of one shape trained side by side as one: for a GPU, which a single small model leaves idle.

Members are of one shape (``vqcore.sizes.shape``). Their encoders run as one network, and so do their decoders: the
parameters are stacked, and ``torch.func`` maps the forward pass over them, which makes of M convolutions one grouped
convolution. The layer between them stays each member's own module with its own optimiser: so estimator, commitment
weight, decay, seed and learning rate may differ, and a member that diverges touches no other. Shapes: M members,
batches of B images.
"""

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from vqcore.captured import CapturedStep
from vqcore.config import TrialConfig
from vqcore.quantizers import Quantized
from vqcore.stacked import Stacked
from vqcore.training import EVALUATION_BATCH, Images, Tally, Trainer, diverged

T = TypeVar("T")
Metrics = dict[str, float]

CERTAIN = ("ste", "rotation", "rotation_unscaled", "reflection")
"""Estimators that draw nothing by chance."""
_GENERATORS = ("generator.cpu", "generator.cuda")
"""Their names in a trainer's state."""
TRIED_TO = 1e-2
"""What networks may compute as one beside what they do alone, of the largest value: the rounding of TF32, amply."""

logger = logging.getLogger(__name__)


class Member(Trainer):
    """A trainer that may train in a pack: it draws from generators of its own, as if it were alone in its process."""

    def __init__(self, config: TrialConfig, device: torch.device | str = "cpu") -> None:
        codes = config.model.quantizer
        self.draws = codes.estimator not in CERTAIN or codes.revive_below > 0 or codes.init == "kmeans++"
        """Whether its layer draws by chance."""
        # a graph draws from the generators that it was recorded with
        super().__init__(config, device, graphed=not self.draws)
        self._generators = _seeded(self.device)

    @contextmanager
    def generators(self) -> Iterator[None]:
        """Meanwhile the process draws from this member's generators."""
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
        self._apart: list[Member] = []
        """Those that were found not to run as one."""

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
        if self._fused is None and len(members) > 1 and self._apart != list(members):
            try:
                fused = _Fused(members)
                fused.try_out(images)
                self._fused = fused
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever torch says of a network of the user's own
                if not self._apart:
                    name, why = members[0].config.model.architecture, f"{type(error).__name__}: {error}"
                    logger.warning("architecture %r cannot run as one of many, its trials take turns: %s", name, why)
                self._apart = list(members)
        return self._fused


class _Fused:
    """Members as one model."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        for member in members:
            member.forget_graph()  # parameters are about to move
        self._encoder = Stacked([member.model.encoder for member in members])
        self._decoder = Stacked([member.model.decoder for member in members])
        self._failed = _Failed()
        """Those that fell out of the epoch in training."""
        self._captured: tuple[Images, CapturedStep] | None = None
        """The step as a graph, and the images that it reads."""

    def try_out(self, images: Images) -> None:
        """Run both networks on two images as an evaluation and as a training does, without a change of state.

        Raises what torch says of them, and ``ValueError`` where a member's own networks compute something else: they
        may depend on more than parameters.
        """
        few = images.batch(slice(0, 2))
        self._mode(training=False)
        with torch.no_grad():
            together = self._decoder(self._encoder(few, shared=True))
            for member, found in zip(self.members, together, strict=True):
                own = member.model.decoder(member.model.latents(few))
                if not torch.allclose(found, own, TRIED_TO, TRIED_TO * float(own.abs().max()), equal_nan=True):
                    raise ValueError("its parameters alone do not make a network what it is")
        self._mode(training=True)
        kept = [(buffer, buffer.clone()) for part in (self._encoder, self._decoder) for buffer in part.buffers.values()]
        parameters = [*self._encoder.parameters.values(), *self._decoder.parameters.values()]
        try:
            with torch.random.fork_rng([few.device] if few.is_cuda else []), self.members[0].autocast():
                out = self._decoder(self._encoder(few, shared=True))
                torch.autograd.grad(out.sum(), parameters, allow_unused=True)
        finally:
            for buffer, before in kept:
                buffer.copy_(before)

    def train_epoch(self, images: Images) -> list[Metrics | Exception]:
        """As ``Pack``'s."""
        self._mode(training=True)
        self._failed = failed = _Failed()
        for member in self.members:
            member.begin_epoch()
        for order in zip(*(member.batches(images) for member in self.members), strict=True):
            self._train(images, torch.stack(order))
            if images.device.type == "cpu":  # a look waits for a GPU: there it comes once, at the end
                for place, member in failed.without(self.members):
                    with failed.alone(place), diverged(f"in epoch {member.epoch + 1}"):
                        member.tally.check_finite()
        return failed.outcomes([member.end_epoch for member in self.members])

    @torch.no_grad()
    def evaluate(self, images: Images) -> list[Metrics | Exception]:
        """As ``Pack``'s."""
        self._mode(training=False)
        failed = _Failed()
        tallies = [Tally(member.model, member.device) for member in self.members]
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images.batch(slice(start, start + EVALUATION_BATCH))
            with self.members[0].autocast():
                quantized = self._quantize(self._encoder(batch, shared=True), failed)
                reconstructions = self._decoder(torch.stack([own.quantized for own in quantized]))
            self._count(tallies, _squared_errors(reconstructions, batch), quantized)
        return failed.outcomes([partial(m.evaluated, own) for m, own in zip(self.members, tallies, strict=True)])

    def _train(self, images: Images, index_MB: Tensor) -> None:
        """A training step of every member, on a GPU as one CUDA graph, if it can be and no member says otherwise."""
        if not all(member.graphed for member in self.members):
            self._step(images, index_MB)
            return
        if self._captured is None or self._captured[0] is not images:
            fused = weakref.proxy(self)  # a cycle would keep a graph's memory until Python looks for cycles
            self._captured = images, CapturedStep(lambda index_MB: fused._step(images, index_MB), index_MB)
        self._captured[1](index_MB)

    def _step(self, images: Images, index_MB: Tensor) -> None:
        """A training step of every member.

        Backward in three parts, decoders, layers, encoders: what one member's layer does there is its own affair.
        """
        failed, batch_NCHW = self._failed, images.batch(index_MB.flatten())
        batch_MBCHW = batch_NCHW.view(*index_MB.shape, *batch_NCHW.shape[1:])
        with self.members[0].autocast():
            latents = self._encoder(batch_MBCHW)
            inputs = [own.detach().requires_grad_() for own in latents]
            quantized = self._quantize(inputs, failed)
            codes = torch.stack([own.quantized.detach() for own in quantized]).requires_grad_()
            reconstructions = self._decoder(codes)
        mse_M = _squared_errors(reconstructions, batch_MBCHW)
        for member in self.members:
            member.optimizers["optimizer"].zero_grad()
        # a sum: no member's gradient depends on another's loss, be that no number
        torch.autograd.backward(mse_M.sum())
        assert codes.grad is not None
        self._cross(quantized, codes.grad, failed)
        torch.autograd.backward(latents, torch.stack([_gradient(own) for own in inputs]))
        self._encoder.hand_out_gradients()
        self._decoder.hand_out_gradients()
        for place, member in failed.without(self.members):
            with failed.alone(place):
                member.descend(member.optimizers["optimizer"])
        self._count([member.tally for member in self.members], mse_M.detach(), quantized)

    def _quantize(self, latents: Tensor | Sequence[Tensor], failed: "_Failed") -> list[Quantized]:
        """Each member's latents by its own layer; of those that fell out zeros, their networks go along untrained."""
        found: dict[int, Quantized] = {}
        for place, (member, own) in failed.without(zip(self.members, latents, strict=True)):
            where = f"in epoch {member.epoch + 1}" if member.model.training else f"after epoch {member.epoch}"
            with failed.alone(place), member.generators() if member.draws else nullcontext(), diverged(where):
                found[place] = member.quantize(own)
        return [found[place] if place in found else _nothing(own) for place, own in enumerate(latents)]

    @staticmethod
    def _cross(quantized: Sequence[Quantized], at_codes: Tensor, failed: "_Failed") -> None:
        """Bring each member's gradient from its codes to its latents, by its own layer."""
        for place, (own, gradient) in failed.without(zip(quantized, at_codes, strict=True)):
            # the gradient of a scalar is 1; a layer that learns nothing has no loss to go back from
            ends, gradients = [own.quantized], [gradient]
            if own.loss.requires_grad:
                ends, gradients = [*ends, own.loss], [*gradients, torch.ones_like(own.loss)]
            with failed.alone(place):
                torch.autograd.backward(ends, gradients)

    @staticmethod
    def _count(tallies: Sequence[Tally], mse_M: Tensor, quantized: Sequence[Quantized]) -> None:
        for tally, mse, own in zip(tallies, mse_M, quantized, strict=True):
            tally.update(mse, own)

    def _mode(self, training: bool) -> None:
        for network in (self._encoder, self._decoder):
            network.train(training)
        for member in self.members:
            member.model.train(training)


class _Failed(dict[int, Exception]):
    """Why members cannot go on, by their places. Their networks go along until the pass ends, untrained."""

    @contextmanager
    def alone(self, place: int) -> Iterator[None]:
        """What is raised within, by an estimator of the user's own say, is that member's alone; but for memory, and
        what a graph that is being captured does not take."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise
            self[place] = error

    def without(self, each: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Of something of each member, that of those which go on, with their places."""
        return ((place, one) for place, one in enumerate(each) if place not in self)

    def outcomes(self, work: Sequence[Callable[[], Metrics]]) -> list[Metrics | Exception]:
        """What ``work`` gives of each member, or why it cannot go on."""
        return [self[place] if place in self else outcome(one) for place, one in enumerate(work)]


def _squared_errors(reconstructions_MBCHW: Tensor, images: Tensor) -> Tensor:
    """Each member's mean over all values, in fp32, (M,)."""
    return (reconstructions_MBCHW.float() - images).square().flatten(1).mean(1)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _nothing(latents: Tensor) -> Quantized:
    """In place of what a layer would have made of the latents."""
    none = latents.new_zeros((), dtype=torch.float32)
    indices = latents.new_zeros((latents.shape[0], *latents.shape[2:]), dtype=torch.int64)
    return Quantized(torch.zeros_like(latents), indices, none, none, none)


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
