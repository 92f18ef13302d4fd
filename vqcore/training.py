"""One epoch, one evaluation, and everything the next epoch depends on."""

import math
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor
from torch.optim import Adam

from vqcore.captured import CapturedStep
from vqcore.config import Precision, TrialConfig
from vqcore.errors import DivergedError
from vqcore.metrics import CodeHistogram
from vqcore.quantizers import Quantized
from vqcore.registry import ARCHITECTURES
from vqcore.vqvae import VQVAE, seeded

EVALUATION_BATCH = 256

SAMPLED_VECTORS = 2048
"""Encoder outputs that a snapshot holds."""
MOST_CODES = 4096
"""Of a codebook that a snapshot holds: no picture tells more apart, and a snapshot is to stay small."""


@contextmanager
def diverged(where: str) -> Iterator[None]:
    """A model that computes infinities has diverged; the quantizer is the first to notice."""
    try:
        yield
    except FloatingPointError as error:
        raise DivergedError(f"{error} {where}") from error


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision of a training on ``device``; ``auto`` is bf16 where the hardware itself computes it, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    instructions = torch.cpu.get_capabilities()
    return "bf16" if instructions.get("avx512_bf16") or instructions.get("amx_bf16") else "fp32"


class Images:
    """uint8 images (N, H, W, 3) where the batches are made: mapped from disk for the CPU, whole on a GPU."""

    def __init__(self, array: UInt8[np.ndarray, "n h w 3"], device: torch.device) -> None:
        self.device = device
        self._array = array
        self._resident = torch.from_numpy(np.array(array)).to(device) if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self._array)

    def batch(self, index: Tensor | slice) -> Float[Tensor, "b 3 h w"]:
        """fp32 on [-1, 1], channels last: the layout in which the bytes already lie. An index lies on ``device``."""
        if self._resident is not None:
            bytes_BHWC = self._resident[index]
        elif isinstance(index, slice):
            bytes_BHWC = torch.from_numpy(self._array[index].copy())  # writable, which torch asks for
        else:
            bytes_BHWC = torch.from_numpy(self._array[index.numpy()])
        return bytes_BHWC.permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)


class Tally:
    """Metrics of one pass over a set, summed where the model is: nothing waits for a GPU until they are read."""

    def __init__(self, model: VQVAE, device: torch.device) -> None:
        self.histogram = CodeHistogram(model.config.quantizer.codebook_size, device)
        self.codes_per_image = 1
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        """Over images: of the squared error, the quantization error, and the loss as the gradient's fp32 has it."""
        self._weight = model.config.quantizer.loss_weight

    def reset(self) -> None:
        """Begin another pass, in the same memory."""
        self.histogram.counts.zero_()
        self._sums.zero_()

    @torch.no_grad()
    def update(self, mse: Float[Tensor, ""], quantized: Quantized) -> None:
        """Add a batch: its mean squared error and its codes."""
        # no count is kept on the host, where a step that is replayed as a CUDA graph changes nothing
        self.codes_per_image = quantized.indices[0].numel()
        each = torch.stack([mse, quantized.codebook_loss, mse + quantized.loss])
        self._sums += each.double() * len(quantized.indices)
        self.histogram.update(quantized.indices)

    def metrics(self) -> dict[str, float]:
        """Of all images so far."""
        images = int(self.histogram.counts.sum()) / self.codes_per_image
        mse, quantization, _ = (self._sums / images).tolist()
        return {
            "mse": mse,
            "perplexity": self.histogram.perplexity,
            "usage": self.histogram.usage,
            "bits": self.histogram.bits(self.codes_per_image),
            "loss": mse + self._weight * quantization,
            "codebook_loss": quantization,
            "commitment_loss": quantization,
        }

    def check_finite(self) -> None:
        """``FloatingPointError`` unless every loss so far is finite: a sum forgets neither infinities nor NaN."""
        if not math.isfinite(loss := float(self._sums[2])):
            raise FloatingPointError(f"loss is {loss}")


class Trainer:
    """A model in training. Two of them with equal configuration, data and device do the same, to the last bit on a CPU.

    ``state`` and ``load_state`` carry all that the next epoch depends on; the order of the data is a function of seed
    and epoch alone, so that every configuration with one seed sees the same batches. On a GPU a step is one CUDA graph,
    where it can be, unless ``graphed`` is false; a state is the same either way.
    """

    def __init__(self, config: TrialConfig, device: torch.device | str = "cpu", graphed: bool = True) -> None:
        self.config = config
        self.device = torch.device(device)
        self.epoch = 0
        """How many are trained."""
        self.counts: np.ndarray = np.zeros(config.model.quantizer.codebook_size, np.int64)
        """How often each code was used in the last evaluation, (K,)."""
        self._trained: CodeHistogram | None = None
        """The codes of the latest epoch; none before one was trained here. It is no state: its epoch is evaluated in
        the same step."""
        self.precision = resolve_precision(config.training.precision, self.device)
        model = seeded(config.model, config.training.seed).to(self.device)
        if self.precision == "bf16":
            model = model.to(memory_format=torch.channels_last)
        self.model: VQVAE = model
        self.tally = Tally(model, self.device)
        """Of the epoch in training."""
        networks = [*self.model.encoder.parameters(), *self.model.decoder.parameters()]
        self.graphed = graphed and self.device.type == "cuda"
        """Whether a step is to be a CUDA graph, if it can be."""
        self._captured: tuple[Images, CapturedStep] | None = None
        """The step as a graph, and the images that it reads."""
        codes = list(self.model.quantizer.parameters())
        together = networks if config.training.alternate else list(self.model.parameters())
        self.optimizers = {"optimizer": self._adam(together)}
        if config.training.alternate:
            self.optimizers["codebook_optimizer"] = self._adam(codes)

    def train_epoch(self, images: Images) -> dict[str, float]:
        """One pass over ``images`` in this epoch's order; metrics over all of it. Raises ``DivergedError``."""
        self.begin_epoch()
        for number, index in enumerate(self.batches(images), start=1):
            with diverged(f"in epoch {self.epoch + 1}, step {number}"):
                self._train(images, index)
                if self.device.type == "cpu":  # a look waits for a GPU: there it comes once, at the end
                    self.tally.check_finite()
        return self.end_epoch()

    def begin_epoch(self) -> None:
        """Before its first step."""
        self.model.train()
        self._trained = None
        self.tally.reset()

    def end_epoch(self) -> dict[str, float]:
        """After its last step: its metrics. Raises ``DivergedError``."""
        with diverged(f"in epoch {self.epoch + 1}"):
            self.tally.check_finite()
        self.epoch += 1
        self._trained = self.tally.histogram
        return self.tally.metrics()

    @torch.no_grad()
    def evaluate(self, images: Images) -> dict[str, float]:
        """Metrics over every one of ``images``, and their rates. Changes no state. Raises ``DivergedError``.

        ``bits_unigram`` needs the codes of an epoch that was trained here, and is left out before there is one.
        """
        self.model.eval()
        tally = Tally(self.model, self.device)
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images.batch(slice(start, start + EVALUATION_BATCH))
            with self.autocast(), diverged(f"after epoch {self.epoch}"):
                out = self.model(batch)
            tally.update(squared_error(out.reconstruction, batch), out.quantized)
        return self.evaluated(tally)

    def evaluated(self, tally: Tally) -> dict[str, float]:
        """Metrics and rates of an evaluation, from its tally."""
        self.counts = tally.histogram.counts.cpu().numpy()
        return tally.metrics() | self._rates(tally)

    def _rates(self, tally: Tally) -> dict[str, float]:
        """Bits an image beside the entropy: of an index of fixed length, and of a code that knows the training set."""
        codes = tally.codes_per_image
        rates = {"bits_uniform": codes * math.log2(self.config.model.quantizer.codebook_size)}
        if self._trained is not None:
            rates["bits_unigram"] = tally.histogram.unigram_bits(self._trained, codes)
        return rates

    @torch.no_grad()
    def codes(self, images: Images) -> Int32[np.ndarray, "n y x"]:
        """The index of each code of ``images``, as an evaluation finds them. Changes no state."""
        self.model.eval()
        found = []
        for start in range(0, len(images), EVALUATION_BATCH):
            with self.autocast(), diverged(f"after epoch {self.epoch}"):
                indices = self.model.encode(images.batch(slice(start, start + EVALUATION_BATCH)))
            found.append(indices.int().cpu())
        codes: np.ndarray = torch.cat(found).numpy()
        return codes

    @torch.no_grad()
    def reconstruct(self, images: Images, count: int) -> UInt8[np.ndarray, "2 n h w 3"]:
        """The first ``count`` images and their reconstructions, as bytes."""
        self.model.eval()
        batch = images.batch(slice(0, count))
        with self.autocast():
            reconstruction = self.model(batch).reconstruction.float()
        pictures: np.ndarray = pixels(torch.stack([batch, reconstruction])).cpu().numpy()
        return pictures

    @torch.no_grad()
    def snapshot(self, images: Images) -> dict[str, np.ndarray]:
        """The quantizer as it is now, to be looked at later. Changes no state, and draws from no shared generator.

        ``embeddings`` (P, D) fp16: what the layer compares with its codes, at fixed positions of ``images``; ``codes``
        (P,): the index of each. Of up to ``MOST_CODES`` codes also ``codebook`` (K, D) fp32, as the decoder sees it,
        and ``patches`` (K, p, p, 3) uint8: the middle of an image of that code alone, as large as a code's share.
        """
        self.model.eval()
        layer = self.model.quantizer
        sample = torch.linspace(0, len(images) - 1, min(len(images), EVALUATION_BATCH)).long().to(images.device)
        with self.autocast(), diverged(f"after epoch {self.epoch}"):
            latents = self.model.latents(images.batch(sample))
            index_N = layer(latents).indices.flatten()
        order = torch.randperm(len(index_N), generator=torch.Generator().manual_seed(0))
        chosen = order[:SAMPLED_VECTORS].sort().values.to(self.device)
        found = {"embeddings": layer.vectors(latents)[chosen].half(), "codes": index_N[chosen]}
        if layer.config.codebook_size <= MOST_CODES:
            found |= {"codebook": layer.codebook, "patches": self._patches(latents.shape[-2], latents.shape[-1])}
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def _patches(self, height: int, width: int) -> UInt8[Tensor, "k p p 3"]:
        """Of each code, from images with ``height`` x ``width`` codes: in smaller ones the border would show."""
        side = ARCHITECTURES[self.config.model.architecture].downsampling
        top, left = height // 2 * side, width // 2 * side
        index_K, patches = torch.arange(self.config.model.quantizer.codebook_size, device=self.device), []
        for start in range(0, len(index_K), EVALUATION_BATCH):
            codes = index_K[start : start + EVALUATION_BATCH].view(-1, 1, 1).expand(-1, height, width)
            with self.autocast():
                images = self.model.decode(codes)
            patches.append(images[..., top : top + side, left : left + side].float())
        return pixels(torch.cat(patches))

    def state(self) -> dict[str, Tensor]:
        """Model with its moving averages, optimiser, generators and epoch, as contiguous CPU tensors.

        Some are the live ones: write or clone them before the next step.
        """
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            state |= {f"{name}.{key}": tensor for key, tensor in adam_state(optimizer).items()}
        state["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        state["epoch"] = torch.tensor(self.epoch)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where ``state`` was taken. Raises ``KeyError`` or ``RuntimeError`` if it is another model's."""
        prefix = "model."
        self.model.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
        for name, optimizer in self.optimizers.items():
            own = f"{name}."
            load_adam_state(optimizer, {n.removeprefix(own): t for n, t in state.items() if n.startswith(own)})
        torch.set_rng_state(state["generator.cpu"])
        if self.device.type == "cuda" and "generator.cuda" in state:
            torch.cuda.set_rng_state(state["generator.cuda"], self.device)
        self.epoch = int(state["epoch"])
        self._trained = self._captured = None  # a graph would go on with the moments that were

    def batches(self, images: Images) -> Iterator[Int[Tensor, " b"]]:
        """The images of each step of this epoch, all steps of one size: what is left over is left out."""
        # a large odd multiplier keeps the orders of (seed, epoch) and (seed + 1, epoch - 1) apart
        generator = torch.Generator().manual_seed(self.config.training.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(images), generator=generator).to(images.device)
        size = min(self.config.training.batch_size, len(images))
        for start in range(0, len(images) - size + 1, size):
            yield order[start : start + size]

    def _train(self, images: Images, index: Tensor) -> None:
        if not self.graphed:
            self.step(images.batch(index))
            return
        if self._captured is None or self._captured[0] is not images:
            trainer = weakref.proxy(self)  # a cycle would keep a graph's memory until Python looks for cycles
            self._captured = images, CapturedStep(lambda index: trainer.step(images.batch(index)), index)
        self._captured[1](index)

    def forget_graph(self) -> None:
        """Record the step anew, after what it reads or writes has moved to other memory."""
        self._captured = None

    def step(self, batch: Float[Tensor, "b 3 h w"]) -> None:
        """One step of training; what it measured is added to ``tally``. Waits for no GPU."""
        mse, quantized = self.forward(batch)
        self.minimise(mse + quantized.loss, self.optimizers["optimizer"])
        self.tally.update(mse.detach(), quantized)

    def forward(self, batch: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, ""], Quantized]:
        """The mean squared error of the reconstructions, fp32, and the codes."""
        with self.autocast():
            quantized = self.quantize(self.model.latents(batch))
            reconstruction = self.model.decoder(quantized.quantized)
        return squared_error(reconstruction, batch), quantized

    def quantize(self, latents: Float[Tensor, "b d y x"]) -> Quantized:
        """The layer's part of a pass; in a training that alternates (Huh et al. 2023) after a step of the codes alone,
        which approach the latents while these stand still."""
        layer = self.model.quantizer
        if not self.config.training.alternate or not layer.training:
            straight: Quantized = layer(latents)
            return straight
        self.minimise(layer(latents.detach()).loss, self.optimizers["codebook_optimizer"])
        layer.frozen = True  # its statistics have seen this batch
        try:
            quantized: Quantized = layer(latents)
        finally:
            layer.frozen = False
        return quantized

    def minimise(self, loss: Float[Tensor, ""], optimizer: Adam) -> None:
        """A step of ``optimizer`` down the gradient of ``loss``."""
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.descend(optimizer)

    def descend(self, optimizer: Adam) -> None:
        """A step of ``optimizer`` down the gradients that its parameters have."""
        codes = getattr(self.model.quantizer, "codes", None)
        if codes is not None and codes.config.revive_below and codes.weight in optimizer.state:
            for name in ("exp_avg", "exp_avg_sq"):  # moments of the place that a revived code has left
                optimizer.state[codes.weight][name].masked_fill_(codes.revived.unsqueeze(1), 0)
        optimizer.step()

    def _adam(self, parameters: list[torch.nn.Parameter]) -> Adam:
        return Adam(parameters, self.config.training.learning_rate, fused=True, capturable=self.graphed)

    def autocast(self) -> AbstractContextManager[None]:
        """Of the networks, in this training's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def squared_error(reconstruction: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Its mean over all values, in fp32."""
    return F.mse_loss(reconstruction.float(), images)


def pixels(images: Float[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b h w 3"]:
    """Images on [-1, 1] as bytes, channels last."""
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)


_ADAM = ("step", "exp_avg", "exp_avg_sq")


def adam_state(optimizer: Adam) -> dict[str, Tensor]:
    """Step counts and moments as ``<parameter's number>.<name>``; zero before the first step."""
    state: dict[str, Tensor] = {}
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        zeros = (torch.zeros(()), torch.zeros_like(parameter), torch.zeros_like(parameter))
        own = optimizer.state.get(parameter) or dict(zip(_ADAM, zeros, strict=True))
        state |= {f"{number}.{name}": own[name] for name in _ADAM}
    return state


def load_adam_state(optimizer: Adam, state: dict[str, Tensor]) -> None:
    """The inverse. Raises ``KeyError`` or ``RuntimeError`` if ``state`` is of other parameters."""
    loaded = {}
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        step, *moments = (state[f"{number}.{name}"] for name in _ADAM)
        # in the parameter's own memory layout: vectorised arithmetic may round differently in another
        moments = [torch.zeros_like(parameter).copy_(moment) for moment in moments]
        loaded[number] = dict(zip(_ADAM, (step.clone(), *moments), strict=True))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": loaded})
