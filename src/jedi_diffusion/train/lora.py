"""Low-rank adapters on a joint UNet, in the format of diffusers."""

from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from jedi_diffusion.adapters import AdapterRecord
from jedi_diffusion.backbones.unet import UNetBackbone, coupled_slope
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.randomness import keyed_number, seeded
from jedi_diffusion.train.config import main_coupling
from jedi_diffusion.train.joint_recipe import JointRecipe, LoraSection


def add_lora(unet: UNet2DConditionModel, section: LoraSection, seed: int) -> None:
    """Freeze a joint UNet and add adapters, in float32, to its attention layers and its first convolution.

    The adapters' first weights depend on `seed` alone.

    The first convolution's rank is the number of values that it reads from its new channels: its adapter can
    then become anything that training the new channels could make of them.
    """
    unet.requires_grad_(False)
    with seeded(keyed_number(seed, "adapters") >> 1):  # peft draws from torch's global state
        unet.add_adapter(lora_config(unet, section))
    cast_training_params(unet)


def lora_config(unet: UNet2DConditionModel, section: LoraSection) -> LoraConfig:
    config: Any = unet.config
    new_channels = config.in_channels - config.out_channels
    rows, columns = unet.conv_in.kernel_size
    rank = min(new_channels * rows * columns, unet.conv_in.out_channels)
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.rank if section.alpha is None else section.alpha,
        target_modules=UNetBackbone.lora_targets,
        rank_pattern={"conv_in": rank},
        alpha_pattern={"conv_in": rank},
    )


def save_lora(pipeline: JeDiPipeline, recipe: JointRecipe, folder: Path) -> None:
    """Write the UNet's adapters as safetensors that `pipeline.load_lora_weights(folder)` reads.

    Beside peft's settings the file holds the AdapterRecord, which that call follows.
    """
    adapter: Any = pipeline.unet.peft_config["default"]
    record = AdapterRecord(
        coupling=main_coupling(recipe.conditions.cached),
        base=recipe.base,
        distance_slope=coupled_slope(pipeline.unet),
        prediction_type=pipeline.scheduler.config.prediction_type,
    )
    JeDiPipeline.write_lora_layers(
        state_dict=JeDiPipeline.pack_weights(get_peft_model_state_dict(pipeline.unet), "unet"),
        save_directory=str(folder),
        is_main_process=True,
        weight_name="pytorch_lora_weights.safetensors",
        save_function=None,  # type: ignore[arg-type]  # diffusers' own
        safe_serialization=True,
        lora_adapter_metadata={f"unet.{key}": value for key, value in adapter.to_dict().items()}
        | record.metadata(),
    )
