"""The peer's model: the project's encoder and decoder around vector-quantize-pytorch, as its documentation has it."""

from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from vqcore.config import ModelConfig
from vqcore.networks import decoder, encoder


class PeerVQVAE(nn.Module):
    """With the rotation trick and a codebook of moving averages."""

    def __init__(self, model: ModelConfig, beta: float, decay: float) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder(model), decoder(model)
        self.quantizer = VectorQuantize(
            dim=model.quantizer.dim,
            codebook_size=model.quantizer.codebook_size,
            decay=decay,
            commitment_weight=beta,
            rotation_trick=True,
            accept_image_fmap=True,
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, indices, commitment loss."""
        quantized, indices, commitment_loss = self.quantizer(self.encoder(images))
        return self.decoder(quantized), indices, commitment_loss
