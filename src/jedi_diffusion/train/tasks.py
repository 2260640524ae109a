"""What a stage optimizes: modules and data, and the loss of a step."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel

from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.train.config import AutoencoderStage, JointStage
from jedi_diffusion.train.pool import LatentPool, compose, draw_sets, to_unit


class StageLoss(Protocol):
    """Modules to train, and the loss of a step, which depends on the generator alone.

    step_shares: for parameters of `modules`, by name, the factor on how far a step moves their values,
    broadcast to them; 1 for the others.
    """

    modules: nn.ModuleDict
    step_shares: dict[str, Tensor]

    def loss(self, generator: torch.Generator) -> Tensor: ...


class AutoencoderTask:
    """Reconstruction: absolute error plus squared error, on latents with a little noise.

    The noise makes the decoder bear the small errors of a diffusion model's latents.
    """

    def __init__(self, autoencoder: PatchAutoencoder, pictures: Tensor, stage: AutoencoderStage) -> None:
        """pictures: (I, 3, H, H) uint8, on the training device."""
        self.modules = nn.ModuleDict({"autoencoder": autoencoder})
        self.step_shares: dict[str, Tensor] = {}
        self.autoencoder, self.pictures, self.stage = autoencoder, pictures, stage

    def loss(self, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(self.pictures), (self.stage.batch,), generator=generator)
        x = to_unit(self.pictures[index.to(self.pictures.device)])
        latents = self.autoencoder.encode(x).latent_dist.mode()
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        decoded = self.autoencoder.decode(latents + self.stage.latent_noise * noise).sample.float()
        return F.l1_loss(decoded, x) + F.mse_loss(decoded, x)


class JointTask:
    """Equation 2 over sets drawn from a pool; both couplings are drawn at random, so one network serves
    both. modules: what is trained, the denoiser's UNet and the text encoder if not given.
    """

    def __init__(
        self,
        denoiser: Any,
        text_encoder: CLIPTextModel,
        pool: LatentPool,
        loss: JointLoss,
        stage: JointStage,
        modules: nn.ModuleDict | None = None,
    ) -> None:
        if modules is None:
            modules = nn.ModuleDict({"unet": denoiser.unet, "text_encoder": text_encoder})
        self.modules = modules
        self.step_shares = _output_shares(modules, pool)
        self.denoiser, self.text_encoder = denoiser, text_encoder
        self.pool, self.joint_loss, self.stage = pool, loss, stage
        self.set_sizes = compose(stage.set_sizes, stage.batch)

    def loss(self, generator: torch.Generator) -> Tensor:
        draw = draw_sets(self.pool, self.stage, self.set_sizes, generator)
        cached = torch.rand((), generator=generator).item() < self.stage.cached
        text = self.text_encoder(draw.tokens).last_hidden_state
        batch = SetBatch(draw.latents, draw.mask, {"text": text}, self.set_sizes, weight=draw.weight)
        return self.joint_loss(self.denoiser, batch, generator, coupling="cached" if cached else "joint")


def _output_shares(modules: nn.ModuleDict, pool: LatentPool) -> dict[str, Tensor]:
    """Return each latent channel's deviation, for the rows of a UNet's last convolution.

    Adam moves every weight by about the learning rate: rows of channels that vary a hundred times less than
    others would be moved a hundred times too far, and pictures get a grain.
    """
    deviation = pool.latents[:1024].float().std(dim=(0, 1, 3, 4))
    layer = "unet.conv_out."
    return {
        name: deviation.view(-1, *[1] * (value.dim() - 1))
        for name, value in modules.named_parameters()
        if name.startswith(layer)
    }
