"""What a recipe will cost, before anything is loaded: parameters, arithmetic, memory, time.

Arithmetic is counted on shapes alone, by running the networks on torch's meta device. A joint forward of N
pictures costs a N + b N^2 (coupled self-attention), so that two counts give all of them.

Letters: N pictures in a set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from jedi_diffusion.backbones import family_of, skeleton
from jedi_diffusion.flops import autoencoder_skeleton, counted
from jedi_diffusion.recipes import CONFIGS
from jedi_diffusion.sets import SetBatch
from jedi_diffusion.train.joint_recipe import Conditions, JointRecipe
from jedi_diffusion.train.network import add_lora
from jedi_diffusion.train.tally import PEAKS

SUSTAINED = 100e12
"""Operations a second that times are given for."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
STATE_BYTES = {"adamw": 16, "adamw8bit": 10}
"""Of each trained weight: gradient, two moments of AdamW, moving average; float32, moments also in 8 bits."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a training. picture (a): a picture's forward without attention between
    tokens; pair (b): a picture's tokens attending to those of one picture; encoding: a picture to latents;
    passes: a forward and its backward, in forwards; repeated: forwards that are run again for backward;
    caption: what a reference without a caption spares, where it reads none.
    """

    picture: float
    pair: float
    encoding: float
    passes: float
    repeated: float
    caption: float = 0.0

    def needed(
        self, is_reference: Sequence[bool], cached: bool, encoded: bool = False, silent: int = 0
    ) -> float:
        """Return what a set costs that is trained on once, without what is only repeated to save memory; its
        latents may be `encoded` before. silent: references without captions.
        """
        count, references = len(is_reference), sum(is_reference)
        forward = self.picture * count + self.pair * pairs(count, references, cached) - self.caption * silent
        return self.passes * forward + (0.0 if encoded else self.encoding * count)


def pairs(count: int, references: int, cached: bool) -> int:
    """Return pairs of pictures of a set of which one attends to the other, itself included."""
    return references**2 + (count - references) * (references + 1) if cached else count**2


def mean_silent(count: int, conditions: Conditions) -> float:
    """Return how many references without captions sets of `count` pictures have on average."""
    references = (
        conditions.reference * count - conditions.reference**count
    )  # one is spared of references alone
    return references * (1 - (1 - conditions.no_text) * (1 - conditions.no_caption))


def mean_pairs(count: int, conditions: Conditions) -> float:
    """`pairs` of sets of `count` pictures on average; a set of references alone spares one of them."""
    p = conditions.reference
    cached = sum(
        comb(count, k) * p**k * (1 - p) ** (count - k) * pairs(count, min(k, count - 1), cached=True)
        for k in range(count + 1)
    )
    return conditions.cached * cached + (1 - conditions.cached) * pairs(count, 0, cached=False)


@dataclass(frozen=True)
class Estimate:
    """parameters: of the network, `trained` of them learn. step: floating-point operations of a step, forward
    and backward, and the autoencoder's on pictures that are not encoded before. state: bytes that a process
    holds for weights and optimizer; kept: about those that a forward of `held` pictures keeps for backward.
    Frozen networks, where pictures are not encoded before, come on top.
    """

    parameters: int
    trained: int
    pictures: float
    step: float
    state: float
    kept: float
    held: int
    steps: int

    def describe(self) -> str:
        hours = self.steps * self.step / SUSTAINED / 3600
        return (
            f"Network: {self.parameters / 1e6:.1f}M parameters, {self.trained / 1e6:.1f}M of them trained. "
            f"A step: {self.pictures:.0f} pictures, {self.step / 1e12:.3g} TFLOP.\n"
            f"Memory of a process: {(self.state + self.kept) / 2**30:.2f} GiB, of which "
            f"{self.state / 2**30:.2f} for weights and optimizer, about {self.kept / 2**30:.2f} for what a "
            f"forward of {self.held} pictures keeps.\n"
            f"All {self.steps} steps: {hours:.3g} device hours at {SUSTAINED / 1e12:.0f} TFLOP/s sustained, "
            f"{SUSTAINED / 1e12 / PEAKS['A100']:.0%} of an A100's peak: {hours / 24:.2g} days on one."
        )


def estimate(recipe: JointRecipe, base: str | None = None, processes: int = 1) -> Estimate:
    """Count a recipe by the configuration files of its base (or of the folder `base`).

    Raises ModelError if they cannot be read.
    """
    place = described(recipe.base if base is None else base)
    network, vae = skeleton(place), autoencoder_skeleton(place)
    parameters = sum(p.numel() for p in network.parameters())
    work = count_work(recipe, network, vae)
    if recipe.lora is not None:
        add_lora(network, recipe.lora, recipe.seed)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    total = sum(source.probability for source in recipe.data.sources)
    pictures = online = forward = 0.0
    for source in recipe.data.sources:
        share = recipe.training.batch * source.probability / total / len(source.sizes)
        for size in source.sizes:
            pictures += share * size
            online += 0.0 if getattr(source, "encoded", None) else share * size
            forward += share * (work.picture * size + work.pair * mean_pairs(size, recipe.conditions))
            forward -= share * work.caption * mean_silent(size, recipe.conditions)
    held = max(max(source.sizes) for source in recipe.data.sources)
    held *= recipe.training.micro_batch // held
    frozen = parameters * BYTES[recipe.training.precision] if recipe.lora else 0
    return Estimate(
        parameters=parameters,
        trained=trained,
        pictures=pictures,
        step=(work.passes + work.repeated) * forward + online * work.encoding,
        state=frozen
        + trained
        * (4 + STATE_BYTES[recipe.training.optimizer])
        / (processes if recipe.training.sharded else 1),
        kept=count_kept(recipe, network, vae, held),
        held=held,
        steps=recipe.training.steps,
    )


def described(base: str) -> str:
    """Return where the configuration files of a base are: the base, or, of some published ones, a folder that
    comes with the package.
    """
    shipped = CONFIGS / "published" / base
    return str(shipped) if not Path(base).exists() and shipped.is_dir() else base


def count_work(recipe: JointRecipe, network: Any, vae: Any) -> Work:
    """Count a joint network and an autoencoder at the recipe's resolution; their weights are not used."""
    with torch.device("meta"):
        network = family_of(network).fresh(network)
        vae = type(vae).from_config(vae.config)
    side = recipe.data.resolution
    size = side // family_of(network)(network).stride(vae)
    alone, two = (count_forward(network, number, size) for number in (1, 2))
    pair = (two - 2 * alone) / 2
    return Work(
        picture=alone - pair,
        pair=pair,
        encoding=counted(lambda: vae.encode(torch.empty(1, 3, side, side, device="meta"))),
        # Backward costs twice the forward; adapters spare the gradients of frozen weights, about half of it.
        passes=2.0 if recipe.lora else 3.0,
        repeated=float(recipe.training.gradient_checkpointing),
        caption=two - count_forward(network, 2, size, silent=1) if reads_captions(network) else 0.0,
    )


def reads_captions(network: nn.Module) -> bool:
    """Return whether captions are tokens of a set, which references without one spare."""
    return family_of(network).tells_captioned


def count_forward(network: Any, number: int, size: int, silent: int = 0) -> float:
    """Return floating-point operations of a joint forward of one set of `number` pictures of size x size
    latents; the first `silent` of them are references without captions.
    """
    backbone = family_of(network)(network)
    noisy = torch.empty(number, backbone.latent_channels, size, size, device="meta")
    shown = torch.tensor([float(row >= silent) for row in range(number)]).view(-1, 1, 1, 1)
    batch = SetBatch(
        latents=noisy,
        mask=shown if silent else shown.to("meta"),
        conditions=backbone.example_conditions(number, backbone.text_tokens),
        set_sizes=(number,),
    )
    return counted(lambda: backbone(noisy, torch.zeros((), device="meta"), batch))


def count_kept(recipe: JointRecipe, network: Any, vae: Any, pictures: int) -> float:
    """Return about how many bytes a forward of so many pictures keeps for its backward.

    Counted as autograd saves them, on tensors without memory. With gradient checkpoints the inputs of blocks
    are kept, and a block's own tensors while it runs again, those of the mean block.
    """
    family, side = family_of(network), recipe.data.resolution
    size = side // family(network).stride(vae)
    precision = getattr(torch, recipe.training.precision)
    with torch.device("meta"):
        made: Any = family.fresh(network)
    if recipe.lora is not None:
        add_lora(made.to(precision), recipe.lora, recipe.seed)
    with FakeTensorMode(allow_non_fake_inputs=True):
        made.to_empty(device="cpu")
        made.train()
        whole = _saved(made, pictures, size, precision)
        if not recipe.training.gradient_checkpointing:
            return whole
        made.enable_gradient_checkpointing()
        blocks = sum(isinstance(each, family.shard_units) for each in made.modules())
        return _saved(made, pictures, size, precision) + whole / max(1, blocks)


def _saved(network: Any, pictures: int, size: int, precision: torch.dtype) -> float:
    """Return the bytes of what autograd saves in a forward of a set, weights aside."""
    backbone = family_of(network)(network)
    noisy = torch.zeros(pictures, backbone.latent_channels, size, size)
    with unset_fake_temporarily():
        mask = torch.ones(pictures, 1, 1, 1, device="meta")  # its values are never asked for
    conditions = backbone.example_conditions(pictures, backbone.text_tokens)
    weights = {each.untyped_storage()._cdata for each in network.parameters()}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in weights:
            saved[place] = tensor
        return tensor

    batch = SetBatch(noisy, mask, conditions, (pictures,))
    autocast = torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each), autocast:
        output = backbone(noisy, torch.full((pictures,), 0.5), batch)
    assert output.requires_grad
    return float(sum(each.untyped_storage().nbytes() for each in saved.values()))
