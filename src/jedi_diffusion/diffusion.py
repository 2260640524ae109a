"""This module only says where its names went."""

raise ImportError("jedi_diffusion.diffusion is now jedi_diffusion.joint: import its names from there.")
