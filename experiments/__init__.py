"""Experiments on the library, run from a checkout; no part of the wheel."""
