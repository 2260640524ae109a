"""Low-rank adapters on a joint UNet, in the format of diffusers."""

from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.train.joint_recipe import LoraSection

TARGETS = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)|conv_in"


def add_lora(unet: UNet2DConditionModel, section: LoraSection) -> None:
    """Freeze a joint UNet and add adapters, in float32, to its attention layers and its first convolution.

    The first convolution's rank is the number of values that it reads from its new channels: its adapter can
    then become anything that training the new channels could make of them.
    """
    unet.requires_grad_(False)
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
        target_modules=TARGETS,
        rank_pattern={"conv_in": rank},
        alpha_pattern={"conv_in": rank},
    )


def save_lora(pipeline: JeDiPipeline, folder: Path) -> None:
    """Write the UNet's adapters as safetensors that `pipeline.load_lora_weights(folder)` reads."""
    adapter: Any = pipeline.unet.peft_config["default"]
    JeDiPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=adapter.to_dict(),
        safe_serialization=True,
    )
