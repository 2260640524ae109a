"""Real models behind the protocols. `settings` and `endpoint` are light; the others import torch."""
