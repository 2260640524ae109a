"""What a joint run trains: the pipeline's modules made ready, and one forward of the loss.

Letters: I pictures of a micro-batch.
"""

import torch
from torch import Tensor, nn

from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.train.batches import MicroBatch
from jedi_diffusion.train.frozen import freeze
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.lora import add_lora

UNET = "denoiser.unet."
"""What the names of a JointStep's parameters, and so those of a checkpoint, begin with."""


class JointStep(nn.Module):
    """One forward of the network on a micro-batch: each picture's weighted squared error, (I,).

    A module, so that wrappers such as DistributedDataParallel see one forward and one backward. `in_step`:
    all micro-batches of a coupling run the UNet as often, as processes that share one have to.
    """

    def __init__(self, denoiser: Backbone, loss: JointLoss, in_step: bool = False) -> None:
        super().__init__()
        self.denoiser, self.loss, self.in_step = denoiser, loss, in_step

    def forward(self, micro: MicroBatch) -> Tensor:
        batch, draw = micro.batch, micro.draw
        errors = self.loss.errors(self.denoiser, batch, draw, micro.coupling)
        losses = (draw.weight * errors).flatten(1).mean(1)
        if self.in_step and micro.coupling == "cached" and not bool(batch.is_reference.any()):
            # Coupling "cached" runs references by themselves: where there are none, a picture that counts
            # nothing stands in for them.
            idle = self.denoiser(draw.noisy[:1], draw.timesteps[:1], batch.select([0], (1,)))
            losses = losses + 0 * idle.float().mean()
        return losses


def prepare_modules(
    recipe: JointRecipe,
    pipeline: JeDiPipeline,
    device: torch.device | str,
    sharded: bool = False,
    encoded: bool = False,
) -> None:
    """Puts the modules on the device: frozen ones in the recipe's precision, trained weights in float32.

    Where all data is `encoded` already, the autoencoder and the text encoders are not needed there.
    """
    precision = getattr(torch, recipe.training.precision)
    freeze(pipeline, "cpu" if encoded else device, precision)
    unet = pipeline.unet
    if not sharded:  # else its parts go there one by one, as the whole may not fit
        unet.to(device)
    if recipe.lora is None:
        unet.to(torch.float32).requires_grad_(True)
    else:
        unet.to(precision)
        add_lora(unet, recipe.lora, recipe.seed)
    if recipe.training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if recipe.training.channels_last:
        unet.to(memory_format=torch.channels_last)
    unet.train()
