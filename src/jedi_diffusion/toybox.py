"""The toybox has left the library: this module only says where it went."""

raise ImportError("jedi_diffusion.toybox is a package of its own: from jedi_toybox import load_pipeline.")
