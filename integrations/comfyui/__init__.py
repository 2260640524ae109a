"""Nodes for ComfyUI: new pictures of a subject from a few reference photos, by jedi-diffusion."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
