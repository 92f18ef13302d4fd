"""Blocks, embeddings and logits that the transformers among the priors share."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqcore.prior.base import Labels, Prior, PriorConfig


class Block(nn.Module):
    """Attention, then two layers at each position, each normalised before and added to what comes in (GPT-2)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, causal: bool, cache: "Cache | None" = None) -> Tensor:
        """(B, N, W) to the same; with a cache, of the newest position alone."""
        projected = self.query_key_value(self.attention_norm(x))
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.extended(key, value)
        with _attention(query):
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=causal and cache is None)
        x = x + self.dropout(self.projection(seen.transpose(1, 2).flatten(2)))
        after: Tensor = x + self.dropout(self.layers(self.norm(x)))
        return after


def _attention(query: Tensor) -> AbstractContextManager[None]:
    """On the CPU in bf16 the backward pass of torch's fused attention takes half of a whole step; its parts do not."""
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()


class Cache:
    """Keys and values of a block at the positions so far, each (B, heads, N, W/heads)."""

    def __init__(self, positions: int) -> None:
        self._positions, self._length = positions, 0
        self._both: Tensor | None = None

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """With those of one position more."""
        if self._both is None:
            self._both = key.new_empty(2, *key.shape[:2], self._positions, key.shape[3])
        self._both[0, :, :, self._length], self._both[1, :, :, self._length] = key[:, :, 0], value[:, :, 0]
        self._length += 1
        return self._both[0, :, :, : self._length], self._both[1, :, :, : self._length]


class Transformer(Prior):
    """What both kinds share. The embedding of codes gives the logits too (Press and Wolf 2017); its last row stands for
    no code: the start, or what is hidden."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__(config)
        self.codes = nn.Embedding(config.codebook_size + 1, config.width)
        self.row = nn.Parameter(torch.zeros(config.rows, 1, config.width))
        self.column = nn.Parameter(torch.zeros(config.columns, config.width))
        self.labels = nn.Embedding(config.classes, config.width) if config.classes else None
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.bias = nn.Parameter(torch.zeros(config.codebook_size))
        self.apply(self._initialise)
        for weight in (self.row, self.column):
            nn.init.normal_(weight, std=0.02)

    def count(self, counts: Integer[Tensor, "k"]) -> None:
        """Also start from them: the first logits are close to the unigram's."""
        super().count(counts)
        with torch.no_grad():
            share = (self.counts + 1).double() / float(self.counts.sum() + self.config.codebook_size)
            self.bias.copy_(share.log())

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def places(self, labels: Labels) -> Tensor:
        """What is added to the embedding of each position, (N, W), or (B, N, W) of labels."""
        places = (self.row + self.column).flatten(0, 1)
        return places if self.labels is None or labels is None else places + self.labels(labels).unsqueeze(1)

    def head(self, x: Tensor) -> Tensor:
        """(..., W) to (..., K), fp32."""
        return F.linear(self.norm(x), self.codes.weight[:-1], self.bias).float()

    def run(self, index_BN: Tensor, labels: Labels, causal: bool) -> Float[Tensor, "b n k"]:
        """Logits at each position of what stands there, K for no code."""
        x = self.codes(index_BN) + self.places(labels)
        for block in self.blocks:
            x = block(x, causal)
        return self.head(x)
