"""What a joint forward of N pictures costs beside N single forwards of the stock UNet, in time and in FLOPs.

Both run in one process, repetition by repetition in turn, so that other load on the machine falls on both.
Prints a table and, as the last line, {"worst_time_over_flops": worst over N of (time ratio / FLOP ratio)}: 1
means that coupling costs what its arithmetic says.

    python benchmarks/coupling.py [--model half|sd14] [--latents 32] [--repetitions 5] [--threads 0] [--device
    cpu]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from jedi_diffusion.backbones.unet import install_coupling
from jedi_diffusion.joint.attention import SetReads

SET_SIZES = (1, 2, 3, 4, 8)
TEXT_TOKENS, TEXT_WIDTH = 77, 768
SD14 = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,  # the number of heads: each has 40, 80 or 160 features
    "cross_attention_dim": TEXT_WIDTH,
}
# Half the width with half the heads: each head as wide as the real one's, a quarter of the work.
HALF = SD14 | {"block_out_channels": (160, 320, 640, 640), "attention_head_dim": 4}
MODELS = {"half": HALF, "sd14": SD14}

Run = Callable[[], torch.Tensor]


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    stock, joint = build(options.model, options.device, getattr(torch, options.dtype))
    print(
        f"{options.model}, {options.latents}x{options.latents} latents, {options.dtype} on {options.device}, "
        f"{torch.get_num_threads()} threads, median (min to max) of {options.repetitions}"
    )
    print(f"{'N':>2} {'N singles, s':>24} {'joint, s':>24} {'time':>7} {'FLOPs':>7} {'time/FLOPs':>11}")
    worst = 0.0
    for number in SET_SIZES:
        flop_ratio = counted_ratio(options.model, number, options.latents)
        singles, joints = timed(stock, joint, number, options)
        time_ratio = statistics.median(joints) / statistics.median(singles)
        print(
            f"{number:>2} {spread(singles):>24} {spread(joints):>24} {time_ratio:>7.3f} {flop_ratio:>7.3f} "
            f"{time_ratio / flop_ratio:>11.3f}",
            flush=True,
        )
        worst = max(worst, time_ratio / flop_ratio)
    print(json.dumps({"worst_time_over_flops": round(worst, 4)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="half")
    parser.add_argument("--latents", type=int, default=32, help="side of the latents (32 is 256 pixels)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args()


def build(
    model: str, device: str, dtype: torch.dtype = torch.float32
) -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """Return the stock UNet with random weights, and a coupled one that shares them."""
    with torch.device(device):
        stock = UNet2DConditionModel(**MODELS[model])
    for parameter in stock.parameters():
        parameter.data = parameter.data.to(dtype)
    with torch.device("meta"):
        joint = install_coupling(UNet2DConditionModel(**MODELS[model]))
    joint.load_state_dict(stock.state_dict(), assign=True)
    return stock.eval(), joint.eval()


def runs(
    stock: UNet2DConditionModel, joint: UNet2DConditionModel, number: int, latents: int
) -> tuple[Run, Run]:
    """N single forwards, and one joint forward of the same N pictures."""
    like = {"device": stock.device, "dtype": stock.dtype}
    noisy = torch.randn(number, 4, latents, latents, **like)
    text = torch.randn(number, TEXT_TOKENS, TEXT_WIDTH, **like)
    step = torch.tensor(500, device=stock.device)

    def run_singles() -> torch.Tensor:
        pairs = zip(noisy.split(1), text.split(1), strict=True)
        return torch.cat([stock(x, step, words).sample for x, words in pairs])

    def run_joint() -> torch.Tensor:
        return joint(noisy, step, text, cross_attention_kwargs={"reads": SetReads((number,))}).sample

    return run_singles, run_joint


@torch.inference_mode()
def counted_ratio(model: str, number: int, latents: int) -> float:
    """FLOPs of the joint forward over those of N singles, counted on shapes alone.

    On the meta device, since torch's counter does not know the CPU's fused attention.
    """
    counts = []
    for run in runs(*build(model, "meta"), number, latents):
        with FlopCounterMode(display=False) as counter:
            run()
        counts.append(counter.get_total_flops())
    return counts[1] / counts[0]


@torch.inference_mode()
def timed(
    stock: UNet2DConditionModel, joint: UNet2DConditionModel, number: int, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Return seconds of every repetition: N singles, joint."""
    both = runs(stock, joint, number, options.latents)
    for run in both:
        run()
    pairs = [[seconds(run) for run in both] for _ in range(options.repetitions)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run().sum().item()  # waits for the device
    return time.perf_counter() - start


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


if __name__ == "__main__":
    main()
