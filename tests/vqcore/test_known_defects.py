"""What goes wrong in public vector-quantization layers, one test each: here it does not."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcore import FSQ, QuantizerConfig, VectorQuantizer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(size: int = 16, dim: int = 4, **config: object) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(QuantizerConfig(codebook_size=size, dim=dim, init="normal", **config))  # type: ignore[arg-type]


def jacobian(layer: VectorQuantizer, z_D: Tensor) -> tuple[Tensor, Tensor]:
    """The code of one vector, and the matrix that takes gradients on the code to gradients on the vector."""
    z_DD = z_D.repeat(len(z_D), 1).requires_grad_()
    out = layer.eval()(z_DD)
    out.quantized.backward(torch.eye(len(z_D)))
    assert z_DD.grad is not None
    return out.quantized[0].detach(), z_DD.grad.T


def test_no_norm_leaks_past_the_bottleneck_and_evaluation_does_not_train() -> None:
    """A published model feeds its decoder ‖z‖ q/‖q‖, learns from test data, and its rotation is a reflection."""
    layer = layer_of(estimator="rotation").eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    directions = layer.codebook.clone()
    lengths = torch.linspace(0.9, 1.1, 5)
    out = layer((directions[:, None] * lengths[:, None]).flatten(0, 1))
    assert len(out.quantized.unique(dim=0)) == len(out.indices.unique()) <= 16
    assert torch.equal(out.quantized, directions[out.indices])
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    _, matrix = jacobian(layer_of(estimator="rotation_unscaled"), normal(4, seed=7))
    assert not torch.allclose(matrix, torch.eye(4), atol=0.1), "a straight-through gradient under another name"
    assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-4)


def test_the_rotation_is_not_transposed() -> None:
    """A published package multiplies the gradient by R, not by its transpose; its reflection is straight-through."""
    z = normal(4, seed=7)
    for name, determinant in (("rotation_unscaled", 1), ("reflection", -1)):
        q, to_z = jacobian(layer_of(estimator=name), z)
        unit_z, unit_q = F.normalize(z, dim=0), F.normalize(q, dim=0)
        # a pull along the code becomes a pull along z
        torch.testing.assert_close(to_z @ unit_q, unit_z, rtol=1e-4, atol=1e-5)
        assert torch.linalg.det(to_z).item() == pytest.approx(determinant, abs=1e-4)
        if name == "rotation_unscaled":
            assert (to_z @ unit_z - unit_q).norm() > 0.1, "its transpose would send z to the code"


def test_nu_goes_to_the_codebook_and_not_to_the_encoder() -> None:
    """A popular library's synchronised update scales the encoder's gradient by 1.5 and gives the codebook none."""
    layer = layer_of(codebook="gradient", nu=0.5, codebook_weight=0.0, commitment_weight=0.0, estimator="ste")
    z = normal(40, 4).requires_grad_()
    out = layer(z)
    (out.quantized.sum() + out.loss).backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.ones(40, 4))
    used = torch.bincount(out.indices, minlength=16).unsqueeze(1)
    torch.testing.assert_close(layer.codes.weight.grad, 0.5 * used.expand(-1, 4))


def test_a_tiny_vector_gets_no_giant_gradient_and_the_right_code() -> None:
    """Published rotations multiply the gradient by 3.5 million near the origin, and output 0 for a vector of 0."""
    layer = layer_of(estimator="rotation", commitment_weight=0.0).eval()
    for length in (0.0, 1e-30, 1.7e-9, 1e-6):
        z = (length * F.normalize(normal(20, 4), dim=-1)).requires_grad_()
        out = layer(z)
        out.quantized.sum().backward()
        assert torch.equal(out.quantized, layer.codebook[out.indices])
        assert z.grad is not None
        assert z.grad.norm(dim=-1).max() <= 1.001 * layer.config.max_rescale * math.sqrt(4)


@pytest.mark.parametrize("affine", ["learned", "statistics"])
def test_a_code_revived_under_an_affine_map_lands_on_the_data(affine: str) -> None:
    """A published layer writes the vector under the map: the code in effect lands 15 away from all data."""
    layer = layer_of(codebook="gradient", affine=affine, revive_below=0.5, revive_share=1.0)
    z = 20 + 3 * normal(50, 4)
    if affine == "learned":
        layer.codes.scale.data.fill_(2.0)
        layer.codes.shift.data.fill_(15.0)
    layer.codes.ema_counts[3] = 0
    layer(z)
    assert layer.codes.revived.nonzero().tolist() == [[3]]
    assert torch.cdist(layer.codebook[3:4].double(), z.double()).min() < 1e-4


@pytest.mark.parametrize("rows", [1, 99, 100, 149])
def test_kmeans_of_few_vectors_keeps_the_size_of_the_codebook(rows: int) -> None:
    """A published layer's codebook of 150 silently shrinks to 100 where its first batch has 100 vectors."""
    torch.manual_seed(0)
    layer = VectorQuantizer(QuantizerConfig(codebook_size=150, dim=4, init="kmeans++"))
    layer(normal(rows, 4))
    assert layer.codebook.shape == (150, 4)
    assert layer.codebook.isfinite().all()


def test_normalising_says_what_it_normalises() -> None:
    """In a published layer "l2" is unit length for the inputs, and a largest norm of 10 for the codes."""
    z = 5 * normal(100, 4)
    for normalize, unit_inputs, unit_codes in (
        ("none", False, False),
        ("inputs", True, False),
        ("codes", False, True),
        ("cosine", True, True),
    ):
        layer = layer_of(normalize=normalize, estimator="ste").eval()
        codes, out = layer.codebook.double(), layer(z)
        assert torch.allclose(codes.norm(dim=-1), torch.ones(16).double()) is unit_codes
        inputs = F.normalize(z.double(), dim=-1) if unit_inputs else z.double()
        assert out.commitment_loss.item() == pytest.approx((inputs - codes[out.indices]).square().mean().item())
        assert torch.equal(out.indices, torch.cdist(inputs, codes).argmin(-1))


@pytest.mark.parametrize(
    "config",
    [
        {"codebook": "gradient", "affine": "learned", "affine_groups": 4},
        {"codebook": "gradient", "affine": "statistics"},
        {"normalize": "cosine"},
        {"codebook": "gradient", "affine": "learned", "normalize": "codes"},
    ],
)
def test_decoding_an_index_goes_through_the_same_map_as_the_forward_pass(config: dict[str, object]) -> None:
    """A published layer's decoding of indices skips the projection of its codes: 1.08 apart."""
    layer = layer_of(**config)
    layer(3 + normal(50, 4))
    for parameter in layer.parameters():
        parameter.data += 0.3
    out = layer.eval()(normal(50, 4, seed=1))
    assert torch.equal(layer.decode(out.indices, channel_dim=-1), out.quantized)


@pytest.mark.parametrize(
    ("offset", "spread", "dtype"),
    [(100.0, 0.05, torch.float32), (1000.0, 0.05, torch.float32), (1.0, 0.02, torch.bfloat16)],
)
def test_data_far_from_the_origin_find_their_nearest_code(offset: float, spread: float, dtype: torch.dtype) -> None:
    """Everyone's ‖z‖² − 2 z·c + ‖c‖² picks 9 % right at an offset of 100, 8 % in bf16 at an offset of 1."""
    layer = layer_of(256, 32).eval()
    layer.codes.weight.copy_(offset + spread * normal(256, 32))
    z = (offset + spread * normal(300, 32, seed=1)).to(dtype)
    right = layer(z, channel_dim=-1).indices == torch.cdist(z.double(), layer.codebook.double()).argmin(-1)
    assert right.float().mean() > 0.995


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_grids_indices_are_never_negative_and_bf16_loses_none(symmetric: bool) -> None:
    """A popular library's finite scalar quantization gave negative indices, and in bf16 half of its codes."""
    config = QuantizerConfig(layer="fsq", estimator="ste", commitment_weight=0, levels="8,8,8", symmetric=symmetric)
    layer, z = FSQ(config), 3 * normal(100_000, 3)
    for dtype in (torch.float32, torch.bfloat16):
        indices = layer(z.to(dtype)).indices
        assert indices.min() == 0
        assert indices.max() == 511
        assert len(indices.unique()) == 512
