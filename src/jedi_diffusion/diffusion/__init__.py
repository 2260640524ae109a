"""Loss, guidance, replacement and sampling: pure functions over a denoiser callable."""

from jedi_diffusion.diffusion.denoiser import Coupling, Denoiser
from jedi_diffusion.diffusion.guidance import (
    Guidance,
    GuidanceMode,
    joint_guidance,
    plan_guidance,
    staged_guidance,
)
from jedi_diffusion.diffusion.levels import NoiseLevel, level_of_step
from jedi_diffusion.diffusion.loss import JointLoss, NoiseDraw
from jedi_diffusion.diffusion.replacement import renoise
from jedi_diffusion.diffusion.sampler import (
    CachedReferences,
    NullSet,
    SamplingPlan,
    Step,
    draw_noise,
    sample,
    seeded_generator,
    spawn_generators,
)

__all__ = [
    "CachedReferences",
    "Coupling",
    "Denoiser",
    "Guidance",
    "GuidanceMode",
    "JointLoss",
    "NoiseDraw",
    "NoiseLevel",
    "NullSet",
    "SamplingPlan",
    "Step",
    "draw_noise",
    "joint_guidance",
    "level_of_step",
    "plan_guidance",
    "renoise",
    "sample",
    "seeded_generator",
    "spawn_generators",
    "staged_guidance",
]
