"""What a joint run trains: the pipeline's modules made ready, and one forward of the loss.

Letters: I pictures of a micro-batch.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from jedi_diffusion.adapters import AdapterRecord, prediction_of
from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.randomness import keyed_number, seeded
from jedi_diffusion.train.batches import MicroBatch
from jedi_diffusion.train.config import main_coupling
from jedi_diffusion.train.frozen import freeze
from jedi_diffusion.train.joint_recipe import JointRecipe, LoraSection


def checkpoint_prefix(pipeline: JeDiPipeline) -> str:
    """Return what the names of a JointStep's parameters, and so those of a checkpoint, begin with."""
    return f"denoiser.{pipeline.network_name}."


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
    """Put the modules on the device: frozen ones in the recipe's precision, trained weights in float32.

    Where all data is `encoded` already, the autoencoder and the text encoders are not needed there.
    """
    precision = getattr(torch, recipe.training.precision)
    freeze(pipeline, "cpu" if encoded else device, precision)
    network: nn.Module = pipeline.network
    if not sharded:  # else its parts go there one by one, as the whole may not fit
        network.to(device)
    if recipe.lora is None:
        network.to(torch.float32).requires_grad_(True)
    else:
        network.to(precision)
        add_lora(network, recipe.lora, recipe.seed)
    if recipe.training.gradient_checkpointing:
        pipeline.network.enable_gradient_checkpointing()
    if recipe.training.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()


def add_lora(network: Any, section: LoraSection, seed: int) -> None:
    """Freeze a joint network and add adapters, in float32, to the layers that its family names.

    The adapters' first weights depend on `seed` alone.
    """
    backbone = family_of(network)(network)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.rank if section.alpha is None else section.alpha,
        target_modules=backbone.lora_targets,
        rank_pattern=backbone.lora_ranks,
        alpha_pattern=backbone.lora_ranks,
    )
    network.requires_grad_(False)
    with seeded(keyed_number(seed, "adapters") >> 1):  # peft draws from torch's global state
        network.add_adapter(config)
    cast_training_params(network)


def save_lora(pipeline: JeDiPipeline, recipe: JointRecipe, folder: Path) -> None:
    """Write the network's adapters as safetensors that `pipeline.load_lora_weights(folder)` reads.

    So do diffusers' pipelines of the family, and ComfyUI, which knows these names but not peft's settings: a
    scale other than 1 is multiplied into the weights. Beside those settings the file holds the AdapterRecord,
    which our call follows.
    """
    name, adapter = pipeline.network_name, pipeline.network.peft_config["default"]
    record = AdapterRecord(
        coupling=main_coupling(recipe.conditions.cached),
        base=recipe.base,
        distance_slope=pipeline.backbone.distance_slope,
        prediction_type=prediction_of(pipeline.scheduler),
    )
    weights = get_peft_model_state_dict(pipeline.network)
    for layer, module in pipeline.network.named_modules():
        if isinstance(module, LoraLayer) and module.scaling["default"] != 1:
            weights[f"{layer}.lora_B.weight"] = module.scaling["default"] * weights[f"{layer}.lora_B.weight"]
    settings = adapter.to_dict() | {"lora_alpha": adapter.r}
    JeDiPipeline.write_lora_layers(
        state_dict=JeDiPipeline.pack_weights(weights, name),
        save_directory=str(folder),
        is_main_process=True,
        weight_name="pytorch_lora_weights.safetensors",
        save_function=None,  # type: ignore[arg-type]  # diffusers' own
        safe_serialization=True,
        lora_adapter_metadata={f"{name}.{key}": value for key, value in settings.items()} | record.metadata(),
    )
