"""What a training costs beside what it must: time over arithmetic, ragged batches, latents, state, loading.

The UNet is coupling.py's, with random weights, an autoencoder and a text encoder of the same share of Stable
Diffusion's. All forms take turns in one process, repetition by repetition, so that other load on the machine
falls on all of them; ratios are taken within a turn. Forms run forward and backward on as many pictures;
optimizer, average and checkpoint are timed by themselves.

Prints a table and, as the last line, JSON: medians over the repetitions of
  worst_time_over_flops  sets of N pictures beside plain single pictures: time ratio / FLOP ratio, worst N of
                         2, 3, 4 (FLOPs of forward and backward, a N + b N^2)
  mixed_over_uniform     operations a second of a batch of sets of 2, 3 and 4, over those of sets of 3
  precomputed_speedup    the mixed batch with pictures and captions encoded in the step, over without
  state_overhead         part of a step that average and checkpoints take, in the recipe's step of so many
                         processes, at the recipe's frequency
  loader_over_training   pictures a second that the loader alone delivers, over those that a training step of
                         the bundled model takes

    python benchmarks/training.py [--model half|shallow|sd14] [--pictures 12] [--repetitions 5]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from coupling import MODELS, TEXT_WIDTH, spread
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from tqdm import tqdm

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.data.mixture import Mixture, MixtureSource
from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import ShardWriter
from jedi_diffusion.data.stored import StoredSets
from jedi_diffusion.flops import counted
from jedi_diffusion.networks.text import make_text_encoder, make_word_tokenizer
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.recipes import find_recipe
from jedi_diffusion.sets import ImageSet
from jedi_diffusion.train.batches import Example, read_steps
from jedi_diffusion.train.config import checked, read_yaml
from jedi_diffusion.train.estimate import count_forward
from jedi_diffusion.train.joint_recipe import JointRecipe
from jedi_diffusion.train.joint_run import start_processes
from jedi_diffusion.train.joint_task import MixtureTask, joint_settings
from jedi_diffusion.train.plan import SetPlan
from jedi_diffusion.trainer.loop import Trainer
from jedi_diffusion.trainer.processes import Accelerated
from jedi_toybox import FOLDER, load_pipeline

ROOT = Path(__file__).resolve().parents[1]
TINY = MODELS["half"] | {
    "block_out_channels": (32, 32, 64, 64),
    "attention_head_dim": 2,
}
# Widths of the autoencoder and layers of the text encoder: as much beside the UNet as Stable Diffusion's are.
# At half the width attention is twice the part of all operations that it is in Stable Diffusion; with half
# the layers it is the same part.
PARTS: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
    "sd14": (MODELS["sd14"], (128, 256, 512, 512), 12),
    "shallow": (MODELS["sd14"] | {"layers_per_block": 1}, (96, 192, 384, 384), 8),
    "half": (MODELS["half"], (64, 128, 256, 256), 3),
    "tiny": (TINY, (32, 32, 32, 32), 1),
}
CAPTION = "a thing"
ONLINE = "mixed, encoded in the step"
STORED = 4
"""Pictures in a set of the loader's shards."""

Run = Callable[[], object]
Times = dict[str, list[float]]


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(
        f"{options.model}, {options.latents}x{options.latents} latents, {options.pictures} pictures, "
        f"{options.dtype} on {options.device}, {torch.get_num_threads()} threads, median (min to max) of "
        f"{options.repetitions}"
    )
    with tempfile.TemporaryDirectory() as folder:
        figures = step_figures(Path(folder) / "step", options)
        figures |= loader_figures(Path(folder) / "loader", options)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=PARTS, default="half")
    parser.add_argument("--latents", type=int, default=32, help="side of the latents (32 is 256 pixels)")
    parser.add_argument("--pictures", type=int, default=12, help="in a batch; a multiple of 12")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--saves", type=int, default=3, help="repetitions of the checkpoint")
    parser.add_argument("--recipe", default="sd15_inpaint")
    parser.add_argument("--processes", type=int, default=8, help="over which the recipe's batch is spread")
    parser.add_argument("--workers", type=int, default=2, help="reading processes of the loader")
    parser.add_argument("--sets", type=int, default=16, help="in a step of the bundled model")
    parser.add_argument("--steps", type=int, default=40, help="that the loader is timed over")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="bfloat16 on CUDA, else float32")
    options = parser.parse_args()
    if options.pictures < 12 or options.pictures % 12:
        parser.error("--pictures must be a multiple of 12, so that sets of 2, 3 and 4 fill a batch")
    # On CPUs bfloat16's matrix units speed up all products but those of torch's attention kernel.
    options.dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    return options


def step_figures(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return all but the loader."""
    recipe = adapted_recipe(folder, options)
    accelerator = start_processes(recipe, folder, options.device)
    trainer = trainer_of(recipe, random_pipeline(options), folder, accelerator)
    times, counts = time_passes(trainer, options)
    show(times, counts)
    worst = max(
        over(times[f"sets of {n}"], times["single pictures"])
        / (counts[f"sets of {n}"] / counts["single pictures"])
        for n in (2, 3, 4)
    )
    mixed = counts["mixed"] / counts["sets of 3"] * over(times["sets of 3"], times["mixed"])
    picture = statistics.median(times[ONLINE]) / options.pictures
    return {
        "worst_time_over_flops": worst,
        "mixed_over_uniform": mixed,
        "precomputed_speedup": over(times[ONLINE], times["mixed"]),
        "state_overhead": state_overhead(trainer, accelerator, picture, options),
    }


def time_passes(trainer: Trainer, options: argparse.Namespace) -> tuple[Times, dict[str, float]]:
    """Return seconds and operations of forward and backward, by form. The stock UNet is gone afterwards."""
    with torch.device(options.device):
        plain = UNet2DConditionModel(**PARTS[options.model][0]).train()

    count = options.pictures
    layouts = {f"sets of {n}": (n,) * (count // n) for n in (2, 3, 4)}
    layouts["mixed"] = (2, 3, 3, 4) * (count // 12)
    batches = {name: batch_of(trainer, sizes, options.latents) for name, sizes in layouts.items()}
    forms: dict[str, Run] = {"single pictures": lambda: plain_pass(plain, trainer, batches["mixed"][2])}
    for name, (_, _, micro) in batches.items():
        forms[name] = lambda micro=micro: joint_pass(trainer, micro)  # type: ignore[misc]
    sets, examples, _ = batches["mixed"]
    forms[ONLINE] = lambda: joint_pass(trainer, trainer.task.encode(sets, examples, "joint"))
    counts = {"single pictures": count * pass_count(options, joint=False, number=1)}
    each = {n: pass_count(options, joint=True, number=n) for n in (2, 3, 4)}
    counts |= {name: sum(each[n] for n in sizes) for name, sizes in layouts.items()}
    return in_turn(forms, options.repetitions, options.device), counts


def adapted_recipe(folder: Path, options: argparse.Namespace) -> JointRecipe:
    """Return the recipe for networks and pictures of this benchmark; batch and frequencies as they are."""
    folder.mkdir(parents=True)
    changes = ["base=none", f"data.resolution={8 * options.latents}", f"training.precision={options.dtype}"]
    changes += ["training.channels_last=false", "training.gradient_checkpointing=false"]
    path = find_recipe(options.recipe, "train")
    return checked(JointRecipe, read_yaml(path, changes), path)


def random_pipeline(options: argparse.Namespace) -> JeDiPipeline:
    unet, widths, layers = PARTS[options.model]
    tokenizer = make_word_tokenizer(CAPTION.split(), max_length=77)
    with torch.device(options.device):
        return JeDiPipeline(
            vae=AutoencoderKL(
                block_out_channels=widths,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
            ),
            text_encoder=make_text_encoder(tokenizer, TEXT_WIDTH, layers, heads=12),
            tokenizer=tokenizer,
            unet=make_joint(UNet2DConditionModel(sample_size=options.latents, **unet)),
            scheduler=DDIMScheduler(),
        )


def trainer_of(
    recipe: JointRecipe, pipeline: JeDiPipeline, folder: Path, accelerator: Accelerator, sets: int = 4
) -> Trainer:
    """Return a trainer on shards of random pictures, written to the folder."""
    side = recipe.data.resolution
    write_shards(folder / "shards", side, sets)
    source = MixtureSource(StoredSets(str(folder / "shards")), sizes=(2, 3, 4))
    processes, mixture = Accelerated(accelerator), Mixture([source], side)
    task = MixtureTask(recipe, pipeline, mixture, processes)
    return Trainer(task, joint_settings(recipe, mixture.fingerprint), processes, folder)


def write_shards(folder: Path, side: int, sets: int) -> None:
    """Write sets of smooth shapes with some noise: about as large, as JPEG, as photos of the size."""
    random = np.random.default_rng(0)
    with ShardWriter(folder) as writer:
        for number in range(sets):
            pictures = tuple(smooth_picture(random, side) for _ in range(STORED))
            given = ImageSet(pictures, (CAPTION,) * STORED)
            writer.write(StoredSet.encode(f"{number:06d}", given))


def smooth_picture(random: np.random.Generator, side: int) -> Image.Image:
    coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = random.integers(-12, 13, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def batch_of(trainer: Trainer, sizes: Sequence[int], latents: int) -> tuple[Any, Any, Any]:
    """Plans and random pictures of sets of these sizes, half of them references, and their micro-batch."""
    side = 8 * latents
    sets = [
        SetPlan(number, 0, tuple(n % 2 == 0 for n in range(size)), (False,) * size, noise_seed=number)
        for number, size in enumerate(sizes)
    ]
    examples = [
        Example(each.place, torch.randint(0, 256, (len(each), 3, side, side)).byte(), (CAPTION,) * len(each))
        for each in sets
    ]
    return sets, examples, trainer.task.encode(sets, examples, "joint")


def joint_pass(trainer: Trainer, micro: Any) -> None:
    with trainer.processes.accelerator.autocast():
        losses = trainer.network(micro)
    trainer.processes.backward(losses.sum())
    trainer.network.zero_grad(set_to_none=True)


def plain_pass(plain: UNet2DConditionModel, trainer: Trainer, micro: Any) -> None:
    """Train on single pictures as usual, by the stock UNet, on the latents of a micro-batch."""
    with trainer.processes.accelerator.autocast():
        prediction = plain(micro.draw.noisy, micro.draw.timesteps, micro.batch.text).sample
        loss = torch.nn.functional.mse_loss(prediction.float(), micro.draw.target)
    trainer.processes.backward(loss)
    plain.zero_grad(set_to_none=True)


def pass_count(options: argparse.Namespace, joint: bool, number: int) -> float:
    """Return operations of forward and backward of a set of so many pictures; a stock UNet's: a set of one.

    a N + b N^2, where b N^2 is self-attention's two products. The backward has two products for each of the
    forward's, and in attention one more: fused kernels make the scores anew.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**PARTS[options.model][0])
        noisy = torch.empty(1, unet.config.in_channels, options.latents, options.latents)
        text = torch.empty(1, UNetBackbone.text_tokens, unet.config.cross_attention_dim)
        plain = counted(lambda: unet(noisy, torch.zeros(()), text))
    make_joint(unet)
    one, two = (count_forward(unet, n, options.latents) for n in (1, 2))
    attention = (two - 2 * one) / 2
    one = one if joint else plain
    return 3 * (one - attention) * number + 3.5 * attention * number**2


def state_overhead(
    trainer: Trainer, accelerator: Accelerator, picture: float, options: argparse.Namespace
) -> float:
    """picture: seconds that a picture takes, forward and backward."""
    recipe = trainer.task.recipe
    records, training, sources = recipe.records, recipe.training, recipe.data.sources
    total = sum(source.probability for source in sources)
    size = sum(s.probability / total * statistics.mean(s.sizes) for s in sources)
    pictures = training.batch * size / options.processes

    def optimize() -> None:
        for parameter in trainer.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        accelerator.clip_grad_norm_([*trainer.parameters.values()], training.clip)
        trainer.optimizer.step()

    def save() -> None:
        trainer.step += 1  # a checkpoint that is there is not written again
        trainer.save()

    forms: dict[str, Run] = {"optimizer": optimize, "average": trainer.update_average}
    times = in_turn(forms, options.repetitions, options.device)
    times |= in_turn({"checkpoint": save}, options.saves, options.device)
    show(times, {})
    optimizer, average, saved = (
        statistics.median(times[name]) for name in ("optimizer", "average", "checkpoint")
    )
    extra = average + saved / records.save_every
    step = pictures * picture + optimizer
    print(
        f"a step of {Path(options.recipe).stem} on {options.processes} processes: {pictures:.0f} pictures "
        f"each, {step:.2f} s; average and 1/{records.save_every} checkpoint: {extra:.4f} s"
    )
    return extra / (step + extra)


def loader_figures(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the loader by itself, then a step of the bundled model, in turn."""
    folder.mkdir(parents=True)
    pipeline = load_pipeline()
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    recipe = JointRecipe.model_validate(
        {
            "name": "loader",
            "base": str(FOLDER),
            "data": {"resolution": side, "sources": [{"kind": "sets", "place": str(folder / "shards")}]},
            "training": {
                "steps": options.steps,
                "batch": options.sets,
                "micro_batch": STORED * options.sets,
                "precision": options.dtype,
            },
        }
    )
    accelerator = start_processes(recipe, folder, options.device)
    trainer = trainer_of(recipe, pipeline, folder, accelerator, sets=8 * options.sets)
    warm = next(loaded(trainer, options))
    advance(trainer, warm)
    delivered, taken = [], []
    for _ in range(options.repetitions):
        delivered.append(loader_rate(trainer, options))
        examples = next(loaded(trainer, options))
        trainer.step = 0  # the step that these examples belong to
        seconds = timed(lambda examples=examples: advance(trainer, examples), options.device)  # type: ignore[misc]
        taken.append(sum(len(each.captions) for each in examples) / seconds)
    print(
        f"pictures a second: the loader with {options.workers} workers {spread(delivered)}, a training step "
        f"of the bundled model at {side} pixels {spread(taken)}"
    )
    return {"loader_over_training": over(delivered, taken)}


def advance(trainer: Trainer, examples: list[Any]) -> None:
    """Take a step on sets that are read already."""
    task = trainer.task
    task.parts = lambda step: task.parts_of(step, examples)
    trainer.advance()


def loaded(trainer: Trainer, options: argparse.Namespace) -> Iterator[list[Any]]:
    training = trainer.task.recipe.training
    return iter(read_steps(trainer.task.mixture, 0, training.steps, training.batch, 0, 1, options.workers))


def loader_rate(trainer: Trainer, options: argparse.Namespace) -> float:
    """Return pictures a second once the workers run: what they have read ahead by then is not counted."""
    batches = loaded(trainer, options)
    for _ in range(min(2 * options.workers + 1, options.steps - 1)):
        next(batches)
    start, pictures = time.perf_counter(), 0
    for examples in batches:
        pictures += sum(len(each.captions) for each in examples)
    return pictures / (time.perf_counter() - start)


def in_turn(forms: dict[str, Run], repetitions: int, device: str) -> Times:
    """Return seconds of every form in every repetition, after one that does not count."""
    plan = [name for _ in range(repetitions + 1) for name in forms]
    taken: Times = {name: [] for name in forms}
    for name in tqdm(plan, desc="timing", leave=False):
        taken[name].append(timed(forms[name], device))
    return {name: seconds[1:] for name, seconds in taken.items()}


def timed(run: Run, device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def over(times: Sequence[float], base: Sequence[float]) -> float:
    """Return the median of the ratios of one turn each."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def show(times: Times, counts: dict[str, float]) -> None:
    """Seconds of each form; where operations were counted, time and FLOPs over those of single pictures."""
    print(f"{'':<28} {'seconds':>24} {'time':>7} {'FLOPs':>7} {'time/FLOPs':>11}")
    for name, seconds in times.items():
        line = f"{name:<28} {spread(seconds):>24}"
        if name in counts:
            time_ratio = over(seconds, times["single pictures"])
            flop_ratio = counts[name] / counts["single pictures"]
            line += f" {time_ratio:>7.3f} {flop_ratio:>7.3f} {time_ratio / flop_ratio:>11.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
