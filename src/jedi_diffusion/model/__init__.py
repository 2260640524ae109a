"""The joint model: coupled self-attention on a diffusers UNet, its widened input, the reference cache.

Also the record of where its attention looks.
"""

from jedi_diffusion.model.attention_record import AttentionMap, AttentionRecord, Correspondence
from jedi_diffusion.model.joint_unet import (
    JointDenoiser,
    coupled_slope,
    install_coupling,
    is_joint,
    make_joint,
    remove_coupling,
    widen_input,
)
from jedi_diffusion.model.reference_cache import CacheView, ReferenceCache
from jedi_diffusion.sets import REFERENCE_TIMESTEP

__all__ = [
    "REFERENCE_TIMESTEP",
    "AttentionMap",
    "AttentionRecord",
    "CacheView",
    "Correspondence",
    "JointDenoiser",
    "ReferenceCache",
    "coupled_slope",
    "install_coupling",
    "is_joint",
    "make_joint",
    "remove_coupling",
    "widen_input",
]
