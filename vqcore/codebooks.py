"""The codes of a codebook: their start (k-means++ among others), their movement, and the revival of unused ones.

The raw codes are ``weight``; the codes in effect, which the layer looks up, are those after the affine map and the
normalisation. Shapes: K codes of D dimensions, G affine groups, N vectors.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vqcore.config import QuantizerConfig
from vqcore.nearest import check_finite, nearest

LAPLACE_EPS = 1e-5
STATISTICS_MOMENTUM = 0.1
"""Of the running statistics of an affine map (Huh et al. 2023)."""

LLOYD_ITERATIONS = 10
"""Of k-means, after the seeding; each lowers the quantization error."""


class Fp32Module(nn.Module):
    """A module whose parameters and buffers stay fp32 when its model becomes bf16: averages would stand still."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Fp32Module":
        def moved(tensor: Tensor) -> Tensor:
            there = fn(tensor)
            return there if tensor.is_meta or not tensor.is_floating_point() else tensor.to(there.device)

        # the one method through which all of .to(), .cuda() and .bfloat16() of a model reach its modules
        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self


class Codes(Fp32Module):
    """K codes: a buffer moved by averages, or a parameter moved by an optimiser.

    With several processes (``torch.distributed``) all replicas see the same sums and move alike, to the last bit.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    seen: Tensor
    ema_counts: Tensor
    ema_sums: Tensor
    steps: Tensor
    started: Tensor
    revivals: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.codebook_size, config.dim
        weight_KD = torch.empty(size, dim, dtype=torch.float32)
        self.weight: Tensor
        if config.codebook == "gradient":
            self.weight = nn.Parameter(weight_KD)
        else:
            self.register_buffer("weight", weight_KD)
        self._start(weight_KD)
        averages_from_zero = config.codebook == "ema_debiased"
        # n = 1 and m = c: from n = 0 an unused code would be m γ / ε, 1e5 away, after one step
        self._register("ema_counts", 0.0 if averages_from_zero else 1.0, size)
        if config.codebook != "gradient":
            self.register_buffer("ema_sums", torch.zeros_like(weight_KD) if averages_from_zero else weight_KD.clone())
        if averages_from_zero:
            self._register("steps", 0.0)
        if config.init == "kmeans++":
            self._register("started", 0.0)
        if config.affine == "learned":
            self.scale, self.shift = (nn.Parameter(weight_KD.new_zeros(config.affine_groups, 1, dim)) for _ in range(2))
        elif config.affine == "statistics":
            for name, start in (("mean", 0.0), ("variance", 1.0)):
                self._register(name, start, dim)
            self._register("seen", 0.0)
            for name, start in (("scale", 1.0), ("shift", 0.0)):
                self._register(name, start, config.affine_groups, 1, dim)
        self._register("revivals", 0.0, size, persistent=False)
        self._started = config.init != "kmeans++"  # on the host: reading the buffer would wait for the GPU
        before_loading: Callable[..., object] = self.register_load_state_dict_pre_hook
        before_loading(_adopt)

    def _register(self, name: str, value: float, *shape: int, persistent: bool = True) -> None:
        # fp32 whatever the default dtype, and never bool: model averaging (torch.optim.swa_utils) takes floats alone
        self.register_buffer(name, torch.full(shape, value, dtype=torch.float32), persistent=persistent)

    @property
    def revived(self) -> Bool[Tensor, " k"]:
        """The codes that the last training step moved to vectors of its batch; their optimiser state is void."""
        return self.revivals > 0

    @property
    def move_in_forward(self) -> bool:
        """Whether a forward pass in training changes codes."""
        config = self.config
        return config.codebook != "gradient" or config.revive_below > 0 or config.affine == "statistics"

    @torch.no_grad()
    def _start(self, weight_KD: Tensor) -> None:
        if self.config.init == "normal":
            weight_KD.normal_()
        else:
            weight_KD.uniform_(-1 / self.config.codebook_size, 1 / self.config.codebook_size)
        weight_KD.copy_(self._normalized(weight_KD))

    def _normalized(self, codes_KD: Tensor) -> Tensor:
        return F.normalize(codes_KD, dim=-1) if self.config.normalize in ("codes", "cosine") else codes_KD

    def forward(self) -> Float[Tensor, "k d"]:
        """The codes in effect; with a gradient to ``weight`` where that is a parameter."""
        codes_KD = self.weight
        if self.config.codebook == "gradient" and self.config.revive_below:
            codes_KD = codes_KD.clone()  # the next batch may revive codes before this one's backward pass
        if self.config.affine != "none":
            scale_G1D, shift_G1D = self._map()
            codes_KD = torch.addcmul(shift_G1D, scale_G1D, self._grouped(codes_KD)).flatten(0, 1)
        return self._normalized(codes_KD)

    @torch.no_grad()
    def prepare(self, z_ND: Float[Tensor, "n d"]) -> None:
        """Before a training batch is quantized: the first codes, the statistics of an affine map, dead codes."""
        if self._started and self.config.affine != "statistics" and not self.config.revive_below:
            return
        check_finite(z_ND)  # else the codes hold what no later batch mends
        if not self._started:
            self._first_codes(z_ND)
        if self.config.affine == "statistics":
            self._measure(z_ND)
        if self.config.revive_below:
            self._revive(z_ND)

    @torch.no_grad()
    def learn(self, z_ND: Float[Tensor, "n d"], index_N: Int[Tensor, " n"]) -> None:
        """After a training batch was quantized: the moving averages, and the codes if nothing else moves them.

        n ← γn + (1−γ)Σ1, m ← γm + (1−γ)Σz, c = m/ñ with ñ = (n+ε)·Σn/(Σn+Kε): Laplace smoothing (van den Oord et al.
        2017, appendix A.1). Debiased, n and m start from 0 and are divided by 1 − γᵗ.
        """
        if self.config.codebook == "gradient":
            if self.config.revive_below:
                self.ema_counts.lerp_(_summed(_counts(index_N, self.config.codebook_size)), 1 - self.config.decay)
            return
        counts_K, sums_KD = self._batch_sums(z_ND, index_N)
        self.ema_counts.lerp_(counts_K, 1 - self.config.decay)
        self.ema_sums.lerp_(sums_KD, 1 - self.config.decay)
        if self.config.codebook == "ema":
            torch.div(self.ema_sums, _smoothed(self.ema_counts).unsqueeze(1), out=self.weight)
        else:
            self.steps += 1
            correction = 1 - self.config.decay**self.steps
            means_KD = self.ema_sums / correction / _smoothed(self.ema_counts / correction).unsqueeze(1)
            # a code that was never used has no mean: it stays
            self.weight.copy_(torch.where(self.ema_counts.unsqueeze(1) > 0, means_KD, self.weight))
        self.weight.copy_(self._normalized(self.weight))

    def _batch_sums(self, z_ND: Tensor, index_N: Tensor) -> tuple[Tensor, Tensor]:
        counts_K = _counts(index_N, self.config.codebook_size)
        sums_KD = torch.zeros_like(self.ema_sums).index_add_(0, index_N, z_ND)
        if not distributed():
            return counts_K, sums_KD
        both_KD1 = _summed(torch.cat([sums_KD, counts_K.unsqueeze(1)], dim=1))  # one message for both
        return both_KD1[:, -1], both_KD1[:, :-1]

    def _first_codes(self, z_ND: Tensor) -> None:
        self._started = bool(self.started)
        if self._started:
            return
        first_KD = torch.zeros_like(self.weight)
        if not distributed() or dist.get_rank() == 0:
            first_KD = kmeans_plus_plus(z_ND, self.config.codebook_size)
        self._put(torch.ones_like(self.ema_counts, dtype=torch.bool), _from_first(first_KD))
        if self.config.codebook == "ema":
            self.ema_sums.copy_(self.weight * self.ema_counts.unsqueeze(1))
        self.started.fill_(1.0)
        self._started = True

    def _measure(self, z_ND: Tensor) -> None:
        sum_D, rows_D = _summed(torch.stack([z_ND.sum(0), torch.full_like(self.mean, z_ND.shape[0])]))
        mean_D = sum_D / rows_D
        variance_D = _summed((z_ND - mean_D).square().sum(0)) / rows_D  # a second pass: E z² − (E z)² cancels
        # the first batch is copied: an average with the starting values would describe no data
        rate = torch.where(self.seen > 0, STATISTICS_MOMENTUM, 1.0)
        self.mean.lerp_(mean_D, rate)
        self.variance.lerp_(variance_D, rate)
        self.seen.fill_(1.0)
        raw_GED = self._grouped(self.weight)
        self.scale.copy_((self.variance / (raw_GED.var(1, correction=0, keepdim=True) + 1e-8)).sqrt())
        self.shift.copy_(self.mean - self.scale * raw_GED.mean(1, keepdim=True))

    def _map(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every group, (G, 1, D): c' = scale ∘ c + shift."""
        if self.config.affine == "learned":
            return 1 + self.config.affine_rate * self.scale, self.config.affine_rate * self.shift
        return self.scale.clone(), self.shift.clone()  # a later step changes them, while this one's gradient may be due

    def _grouped(self, codes_KD: Tensor) -> Tensor:
        return codes_KD.view(self.config.affine_groups, -1, codes_KD.shape[1])

    def _revive(self, z_ND: Tensor) -> None:
        """Move the least used codes to vectors of the batch, each to another; no more than ``revive_share`` of them."""
        most = max(1, int(self.config.revive_share * self.config.codebook_size))
        average = self.ema_counts.sum() / self.config.codebook_size
        counts_R, least_R = self.ema_counts.topk(most, largest=False)
        drawn_RD = z_ND[torch.randperm(z_ND.shape[0], device=z_ND.device)[:most]]
        # to its vector each code's last number says whether there is one: a batch may have fewer
        drawn_RD1 = F.pad(F.pad(drawn_RD, (0, 1), value=1.0), (0, 0, 0, most - drawn_RD.shape[0]))
        drawn_RD1 = _from_first(drawn_RD1)
        dead_R = (counts_R < self.config.revive_below * average) & (drawn_RD1[:, -1] > 0)
        vectors_KD = torch.zeros_like(self.weight).index_copy_(0, least_R, drawn_RD1[:, :-1])
        self.revivals.zero_().index_copy_(0, least_R, dead_R.float())
        revived_K = self.revived
        self._put(revived_K, vectors_KD)
        self.ema_counts.copy_(torch.where(revived_K, average, self.ema_counts))
        if self.config.codebook != "gradient":
            sums_KD = self.weight * self.ema_counts.unsqueeze(1)
            self.ema_sums.copy_(torch.where(revived_K.unsqueeze(1), sums_KD, self.ema_sums))

    def _put(self, where_K: Tensor, effective_KD: Tensor) -> None:
        """Give the codes ``where_K`` the values ``effective_KD`` in effect: through the inverse of the affine map."""
        if self.config.affine == "none":
            raw_KD = self._normalized(effective_KD)
        else:
            scale_G1D, shift_G1D = self._map()
            safe_G1D = torch.where(scale_G1D.abs() < 1e-6, 1e-6, scale_G1D)
            raw_KD = ((self._grouped(effective_KD) - shift_G1D) / safe_G1D).flatten(0, 1)
        self.weight.copy_(torch.where(where_K.unsqueeze(1), raw_KD, self.weight))


def _adopt(codes: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded: codes that come without ``started`` count as started, whatever ``init`` says."""
    assert isinstance(codes, Codes)
    if codes.config.init != "kmeans++":
        state.pop(f"{prefix}started", None)
    elif f"{prefix}weight" in state:
        state.setdefault(f"{prefix}started", torch.ones(()))
    codes._started = codes.config.init != "kmeans++"  # else the next training batch reads the buffer


def _counts(index_N: Tensor, size: int) -> Tensor:
    """How often each code occurs, fp32. Not bincount: on a GPU that waits for the host."""
    ones_N = torch.ones_like(index_N, dtype=torch.float32)
    return ones_N.new_zeros(size).index_add_(0, index_N, ones_N)


def _smoothed(counts_K: Tensor) -> Tensor:
    total = counts_K.sum()
    return (counts_K + LAPLACE_EPS) * (total / (total + counts_K.shape[0] * LAPLACE_EPS))


def distributed() -> bool:
    """Whether several processes train replicas of one model."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _summed(tensor: Tensor) -> Tensor:
    """Over all processes, in place."""
    if distributed():
        dist.all_reduce(tensor)
    return tensor


def _from_first(tensor: Tensor) -> Tensor:
    """The first process's, in place: what was drawn by chance must be the same everywhere."""
    if distributed():
        dist.broadcast(tensor := tensor.contiguous(), src=0)
    return tensor


@torch.no_grad()
def kmeans_plus_plus(
    z_ND: Float[Tensor, "n d"], size: int, generator: torch.Generator | None = None
) -> Float[Tensor, "k d"]:
    """``size`` codes for ``z_ND``, one or more: k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's iterations.

    Memory is that of a few vectors of N. With more codes than distinct vectors the rest repeat vectors, moved by a
    hundredth of the data's spread, so that no two codes tie.
    """
    z_ND = z_ND.float()
    codes_KD = _seeds(z_ND, size, generator)
    for _ in range(LLOYD_ITERATIONS):
        index_N = nearest(z_ND, codes_KD)
        sums_KD = torch.zeros_like(codes_KD).index_add_(0, index_N, z_ND)
        counts_K = _counts(index_N, size)
        used_K1 = counts_K.unsqueeze(1) > 0
        codes_KD = torch.where(used_K1, sums_KD / counts_K.clamp(min=1).unsqueeze(1), codes_KD)
    return codes_KD


def _seeds(z_ND: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    rows, device = z_ND.shape[0], z_ND.device
    centred_ND = z_ND - z_ND.mean(0)  # the expansion below cancels far from the origin
    square_N = centred_ND.square().sum(-1)
    u_K = torch.rand(size, generator=generator, dtype=torch.float64).to(device)
    chosen_K = torch.zeros(size, dtype=torch.int64, device=device)
    chosen_K[0] = (u_K[0] * rows).long()
    distance_N = torch.full_like(square_N, torch.inf)
    exhausted_K = torch.zeros(size, dtype=torch.bool, device=device)
    for k in range(1, size):
        last = chosen_K[k - 1 : k]
        new_N = torch.addmv(square_N, centred_ND, centred_ND[last].squeeze(0), alpha=-2).add_(square_N[last])
        rounding_N = 1e-6 * (square_N + square_N[last])  # what is less apart is the same vector
        distance_N = torch.minimum(distance_N, torch.where(new_N > rounding_N, new_N, 0))
        cumulative_N = distance_N.cumsum(0, dtype=torch.float64)
        total = cumulative_N[-1]
        drawn = torch.searchsorted(cumulative_N, (u_K[k] * total).reshape(1), right=True)
        exhausted_K[k] = total <= 0
        chosen_K[k : k + 1] = torch.where(total > 0, drawn.clamp(max=rows - 1), (u_K[k] * rows).long())
    spread_D = z_ND.std(0, correction=0)
    moved_KD = 0.01 * spread_D * torch.randn(size, z_ND.shape[1], generator=generator, dtype=torch.float32).to(device)
    return z_ND[chosen_K] + moved_KD * exhausted_K.unsqueeze(1)
