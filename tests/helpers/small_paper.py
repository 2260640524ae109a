"""The recipe of the paper's tables with everything as small as it runs."""

from copy import deepcopy
from typing import Any

from tests.helpers.small_recipes import TINY_UNET

STAGE = {
    "resolution": 32,
    "subjects": 6,
    "pictures": 4,
    "share": 0.5,
    "steps": 2,
    "batch": 4,
    "learning_rate": 1e-3,
}
SETS = {"kind": "joint", "set_sizes": {1: 0.25, 2: 0.75}, "attention": "plain"}
RECIPE: dict[str, Any] = {
    "name": "small",
    "tables": ["4"],
    "set": {"subjects": 2, "prompts": 1, "samples": 1, "inputs": 3},
    "sampling": {"steps": 1, "guidance": 3.0, "batch": 4},
    "backbone": {
        "name": "small-backbone",
        "source": "toybox",
        "precision": "float32",
        "model": {
            "autoencoder": {"latent_channels": 4, "widths": [8, 16]},
            "text_width": 16,
            "text_layers": 1,
            "text_heads": 2,
            "text_length": 28,
            "unet": dict(TINY_UNET),
            "scheduler": {"prediction_type": "v_prediction"},
        },
        "stages": [
            STAGE | {"name": "autoencoder", "kind": "autoencoder"},
            STAGE | SETS | {"name": "single", "set_sizes": {1: 1.0}, "reference": 0.0},
        ],
    },
    "training": STAGE | SETS | {"name": "sets"},
    "data": {"amounts": [0, 2, 4, 6], "views": 3, "compiled": False},
    "encoder": STAGE | {"name": "encoder", "features": 8, "tokens": 2},
    "learned": {"width": 8, "side": 2},
    "finetuning": {
        "dreambooth": {"fit_steps": 1, "fit_batch": 1, "learning_rate": 1e-3, "prior_pictures": 1},
        "custom_diffusion": {"fit_steps": 1, "fit_batch": 1, "learning_rate": 1e-3, "prior_pictures": 1},
    },
    "sweeps": {
        "scales": [1.5, 4.0],
        "both": [1.5, 4.0],
        "references": [1, 2, 3],
        "steps": [1],
        "schedulers": ["model"],
    },
    "timing": {"repetitions": 2, "large": False},
    "estimate": {"trained": 100, "sampled": 200},
}


def small_recipe(**changes: Any) -> dict[str, Any]:
    """A copy, with keys replaced by their path: `sweeps__both=[1.5, 4.0]`."""
    raw = deepcopy(RECIPE)
    for path, value in changes.items():
        place = raw
        *names, last = path.split("__")
        for name in names:
            place = place[name]
        place[last] = value
    return raw
