"""Load on `jedi serve`, a process of its own on loopback: throughput, latency, overload, gain by batching.

Clients ask for one picture after another, each with its own seed and the same reference, so that the server
may put several into one call. Servers with --batch 1 and --batch 8 take turns for `batch_speedup`, so that
other load on the machine falls on both. Overload is ten times more clients than the queue holds: each
accepted request must be answered with its picture, each other one with 429.

Prints a table and, as the last line, {"overload_failures": requests that got neither, "memory_growth_mb": the
server's resident memory after the overload over that before, "batch_speedup": median ratio of throughputs}.

    python benchmarks/serving.py [--model toybox] [--steps 10] [--seconds 20] [--overload 60] [--device cpu]
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
import psutil
from PIL import Image

CLIENTS = (1, 4, 16)
QUEUE = 16
TIMES_TOO_MANY = 10
PAUSE = 0.5
"""Seconds that a client waits after a 429: the clients must not starve the server they measure."""
MOST_REQUESTS = 20_000


@dataclass
class Load:
    """What clients met: seconds of each answer with a picture, other answers by status, faults by name."""

    seconds: list[float] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    length: float = 0.0

    @property
    def throughput(self) -> float:
        return len(self.seconds) / self.length


class Served:
    """`jedi serve` in a process of its own, which ends with the stack."""

    def __init__(self, options: argparse.Namespace, batch: int, stack: ExitStack) -> None:
        words = ["serve", "--model", options.model, "--device", options.device, "--port", "0"]
        words += ["--queue", str(QUEUE), "--batch", str(batch), "--grace", "1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jedi_diffusion", *words],
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "JEDI_TOKENS"},
        )
        stack.callback(self.stop)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if " at " not in line:
            raise SystemExit("The server did not start.")
        self.url = line.split(" at ")[1].split()[0]
        self.steps = options.steps
        data = io.BytesIO()
        Image.effect_noise((128, 128), 80).convert("RGB").save(data, format="PNG")
        self.photo = data.getvalue()

    def ask(self, client: httpx.Client, seed: int) -> httpx.Response:
        form = {"prompt": "a robot on the beach", "seed": str(seed), "steps": str(self.steps)}
        return client.post(f"{self.url}/v1/images/edits", data=form, files={"image": self.photo}, timeout=600)

    def megabytes(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def main() -> None:
    options = parse()
    with ExitStack() as stack:
        single, batched = (Served(options, batch, stack) for batch in (1, 8))
        for each in (single, batched):
            run(each, 1, seconds=0.0)
        print(f"{options.model} on {options.device}, {options.steps} steps, {options.seconds:g} s each")
        print(f"{'clients':>8} {'pictures/s':>11} {'p50, s':>8} {'p95, s':>8}")
        for clients in CLIENTS:
            show(str(clients), run(single, clients, options.seconds))
        ratios = []
        for _ in range(options.repetitions):
            pair = [run(each, max(CLIENTS), options.seconds).throughput for each in (single, batched)]
            ratios.append(pair[1] / pair[0])
        before = single.megabytes()
        crowd = run(single, TIMES_TOO_MANY * QUEUE, options.overload)
        show("overload", crowd)
        grown = single.megabytes() - before
        refused = crowd.others.pop("429", 0)
        print(f"overload: {len(crowd.seconds)} pictures, {refused} refused, others: {dict(crowd.others)}")
    result = {
        "overload_failures": sum(crowd.others.values()),
        "memory_growth_mb": round(grown, 1),
        "batch_speedup": round(statistics.median(ratios), 3),
    }
    print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox", help="toybox (bundled), a folder, or a Hub id")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds of overload")
    parser.add_argument("--repetitions", type=int, default=3, help="turns for batch_speedup")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu")
    return parser.parse_args()


def run(served: Served, clients: int, seconds: float) -> Load:
    """Clients that ask until the time is up and wait for their last answer; each asks at least once."""
    load, lock = Load(), threading.Lock()
    start = time.perf_counter()
    end, seeds = start + seconds, iter(range(MOST_REQUESTS))

    def client() -> None:
        with httpx.Client() as http:
            while (seed := take()) is not None:
                begun = time.perf_counter()
                outcome = answered(lambda seed=seed: served.ask(http, seed))
                with lock:
                    if outcome == "picture":
                        load.seconds.append(time.perf_counter() - begun)
                    else:
                        load.others[outcome] += 1
                if outcome != "picture":
                    time.sleep(PAUSE)
                if time.perf_counter() >= end:
                    return

    def take() -> int | None:
        with lock:
            return next(seeds, None)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.length = time.perf_counter() - start
    return load


def answered(ask: Callable[[], httpx.Response]) -> str:
    """ "picture", the status of another answer, or the name of what went wrong."""
    try:
        answer = ask()
        whole = answer.status_code == 200 and len(answer.json()["data"][0]["b64_json"]) > 0
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return type(error).__name__
    return "picture" if whole else str(answer.status_code)


def show(name: str, load: Load) -> None:
    times = sorted(load.seconds) or [float("nan")]
    p50, p95 = (times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95))
    print(f"{name:>8} {load.throughput:>11.2f} {p50:>8.3f} {p95:>8.3f}", flush=True)


if __name__ == "__main__":
    main()
