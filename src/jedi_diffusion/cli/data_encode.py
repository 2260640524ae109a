"""`jedi data encode`: what the frozen networks make of shards, so that training need not run them."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Literal

import tyro
from tqdm import tqdm

from jedi_diffusion.devices import pick_device
from jedi_diffusion.errors import DataError, UsageError
from jedi_diffusion.models import check_model_name, open_base, quiet_libraries
from jedi_diffusion.options import check_options


@dataclass(frozen=True)
class EncodeOptions:
    """Store latents and text embeddings beside shards: x.tar.NAME.safetensors beside x.tar.

    A recipe's source with `encoded: NAME` then trains without autoencoder and text encoder. Started again,
    the command goes on with the shards that are not done; several processes (torchrun --nproc-per-node N
    --no-python jedi data encode ...) share the shards out. A set that cannot be used is named, and left out
    in training.
    """

    place: tyro.conf.Positional[str]
    """Shards: a folder, x.tar, x/{00000..00041}.tar, s3://."""
    base: str
    """The model that will be trained: a diffusers folder, a Hub id or "toybox", as in the recipe."""
    resolution: int
    """Pixels of a side, the recipe's data.resolution."""
    name: str = "latents"
    """What the latents are called; other bases and sizes need other names."""
    kind: Literal["sets", "single"] = "sets"
    """What is in the shards, as in the recipe."""
    store: Literal["float16", "bfloat16", "float32"] = "float16"
    """Type that is stored."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type that the networks run in."""
    batch: int = 8
    """Pictures that the autoencoder gets at a time."""
    threads: int = 4
    """Threads that read and decode pictures."""
    replace: bool = False
    """Replace latents of this name that were made otherwise, and try again what could not be used."""
    quarantine: str | None = None
    """A local file to list in what cannot be used; it is printed in any case."""
    limit: int = 100
    """Stop if more sets than this cannot be used."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""


def run(arguments: list[str]) -> None:
    """Raise JeDiError."""
    given = tyro.cli(EncodeOptions, args=arguments, prog="jedi data encode")
    check(given)
    import torch

    from jedi_diffusion.backbones import text
    from jedi_diffusion.data.quarantine import Quarantine
    from jedi_diffusion.train.encoding import Encoding, ShardEncoder
    from jedi_diffusion.train.frozen import encoders_fingerprint, freeze
    from jedi_diffusion.train.joint_run import first_only
    from jedi_toybox import folder_of

    rank, ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = pick_device(given.device)
    if device.type == "cuda" and ranks > 1:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    quiet_libraries()
    pipeline = open_base(folder_of(given.base))
    encoders = encoders_fingerprint(pipeline, given.resolution)
    freeze(pipeline, device, getattr(torch, given.precision))
    settings = Encoding(
        name=given.name,
        base=given.base,
        resolution=given.resolution,
        kind=given.kind,
        store=given.store,
        batch=given.batch,
        threads=given.threads,
        replace=given.replace,
    )
    quarantine = Quarantine(given.quarantine, given.limit)
    encoder = ShardEncoder(pipeline, encoders, given.place, settings, quarantine, _say)
    tars = encoder.open(rank, ranks)
    total = sum(len(each.index) for each in tars)
    desc = f"process {rank + 1} of {ranks}" if ranks > 1 else None
    bar = tqdm(total=total, unit="set", desc=desc, file=sys.stderr, disable=rank > 0)
    try:
        with bar, first_only(text.logger):
            for each in tars:
                encoder.encode(each, bar.update)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{given.batch} pictures at a time are too many for the memory of {device}: lower --batch."
        ) from error
    done = encoder.count
    where = f"{desc}: " if desc else ""
    print(
        f"{where}{done.sets} sets with {done.pictures} pictures of {done.tars} shards are encoded as "
        f"{given.name}; {done.done_before} shards were before"
    )
    if done.faults:
        print(f"{where}{done.faults} could not be used")
    if not done.tars and not done.done_before and done.faults:
        raise DataError(f"Nothing in {given.place} can be used.")


def check(given: EncodeOptions) -> None:
    """Raise UsageError or ModelError for what cannot be meant."""
    from jedi_diffusion.data.settings import NAME

    if not re.fullmatch(NAME, given.name):
        raise UsageError(f"--name is {given.name!r}, but is made of small letters, digits, - and _.")
    if given.resolution % 8:
        raise UsageError(f"--resolution is {given.resolution}, but must be a multiple of 8.")
    limits = {"resolution": (16, 4096), "batch": (1, 4096), "threads": (1, 256), "limit": (0, 10**9)}
    check_options(given, limits)
    check_model_name(given.base)


def _say(reason: str) -> None:
    tqdm.write(f"jedi: {reason}", file=sys.stderr)
