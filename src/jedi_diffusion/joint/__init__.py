"""The method, a file for each idea of the paper: coupled attention, cached references, guidance, loss ...

Nothing here knows a network's class: a network is a `Denoiser`, and `jedi_diffusion.backbones` makes one.
"""

from jedi_diffusion.joint.cache import CacheView, ReferenceCache
from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.guidance import (
    Guidance,
    joint_guidance,
    plan_guidance,
    staged_guidance,
)
from jedi_diffusion.joint.loss import JointLoss, NoiseDraw
from jedi_diffusion.joint.process import Diffusion, Flow, NoiseLevel, Process, process_of
from jedi_diffusion.joint.record import AttentionMap, AttentionRecord, Correspondence
from jedi_diffusion.joint.sampler import (
    CachedReferences,
    SamplingPlan,
    Step,
    draw_noise,
    sample,
)
from jedi_diffusion.options import Coupling, GuidanceMode, NullSet

__all__ = [
    "AttentionMap",
    "AttentionRecord",
    "CacheView",
    "CachedReferences",
    "Correspondence",
    "Coupling",
    "Denoiser",
    "Diffusion",
    "Flow",
    "Guidance",
    "GuidanceMode",
    "JointLoss",
    "NoiseDraw",
    "NoiseLevel",
    "NullSet",
    "Process",
    "ReferenceCache",
    "SamplingPlan",
    "Step",
    "draw_noise",
    "joint_guidance",
    "plan_guidance",
    "process_of",
    "sample",
    "staged_guidance",
]
