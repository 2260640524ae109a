"""Loss, guidance, replacement and sampling: pure functions over a denoiser callable."""

from jedi_diffusion.diffusion.denoiser import Coupling, Denoiser
from jedi_diffusion.diffusion.guidance import GuidanceMode, joint_guidance, plan_guidance, staged_guidance
from jedi_diffusion.diffusion.loss import JointLoss, NoiseDraw

__all__ = [
    "Coupling",
    "Denoiser",
    "GuidanceMode",
    "JointLoss",
    "NoiseDraw",
    "joint_guidance",
    "plan_guidance",
    "staged_guidance",
]
