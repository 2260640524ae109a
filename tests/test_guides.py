"""README and guides as a newcomer follows them: every block, in order, with the wheel installed.

What would take hours, a network or a GPU is cut down (CHANGED) or left out with a reason (SKIPPED); neither
table holds anything that the pages have no line for.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from jedi_diffusion.recipes import CONFIGS
from tests.helpers.newcomer import ROOT, Block, Newcomer, blocks_of, build_wheel, free_port, make_environment
from tests.helpers.small_benchmarks import make_clone, picture
from tests.helpers.small_pipelines import sd_parts

PAGES = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}

CHECKOUT = "needs a checkout; its own tests run it"
INSTALL = "the wheel is installed already"
PLACEHOLDER = "has a placeholder for the reader's own part"
SKIPPED = {
    ("README.md", "make demo"): CHECKOUT,
    ("README.md", "make test"): CHECKOUT,
    ("README.md", "pip install '.[app]'"): INSTALL,
    ("model_card.md", "python benchmarks/"): CHECKOUT,
    ("README.md", "path/to/FLUX"): "needs the weights of FLUX.2",
    ("models.md", "path/to/FLUX"): "needs the weights of FLUX.2",
    ("data.md", "s3://bucket/sets"): "needs a bucket, videos and renders",
    ("paper_tables.md", "pip install"): INSTALL,
    ("paper_tables.md", "python -m experiments"): CHECKOUT,
    ("scoring.md", "evaluate places"): "needs shards of captioned photos, and a list of places",
    ("showroom.md", "pip install"): INSTALL,
    ("showroom.md", "jedi showroom"): "needs the showroom's packages, 380 MB",
    ("showroom.md", "jedi train showroom"): "needs the showroom's packages, 380 MB",
    ("showroom.md", "jedi photos score"): "needs the showroom's packages, 380 MB",
    ("showroom.md", "jedi demo --photos"): "needs the showroom's packages, 380 MB",
    ("scoring.md", "git clone"): "a small data set of the same form stands in for the download",
    ("scoring.md", "--clip clip-vit-base-patch32"): "needs CLIP's and DINO's weights",
    ("serving.md", "pip install"): INSTALL,
    ("serving.md", "--content-credentials"): "needs a certificate; tests/cli/test_signing.py has one",
    ("serving.md", "--engine ray"): "needs Ray",
    ("serving.md", "ray start"): "needs Ray",
    ("serving.md", "ray status"): "needs Ray",
    ("synthesis.md", "writer=..."): PLACEHOLDER,
    ("synthesis.md", "check_models(section)"): PLACEHOLDER,
    ("synthesis.md", "MySettings"): PLACEHOLDER,
    ("synthesis.md", "EndpointPromptWriter"): "needs an endpoint",
    ("synthesis.md", "report data/s3"): "needs the paper's data set",
    ("synthesis.md", "apt-get"): CHECKOUT,
    ("synthesis.md", "tools/object_names.py"): CHECKOUT,
    ("training.md", "git clone"): "a small data set of the same form stands in for the download",
    ("training.md", "--export last"): "needs a run that was stopped",
    ("training.md", "load_lora_weights"): "needs Stable Diffusion's weights",
    ("training.md", "torchrun"): "needs GPUs",
    ("training.md", "python benchmarks/"): CHECKOUT,
}

STABLE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
JOB = """$(python -c "import json; print(json.load(open('job.json'))['id'])")"""
BATCHES = "import torch\nmy_batches = [(torch.zeros(5, 3, 64, 64), ['a dog'] * 5, (3, 2))]\n"
FEW_STEPS = " --steps 2"
CLIENT = "from openai import OpenAI\nclient = OpenAI(base_url='http://127.0.0.1:7860/v1', api_key='any')\n"
TINY = (
    "supersample=1 model.unet.block_out_channels=[32,32,32] model.unet.attention_head_dim=1 "
    "stages.{0,1}.subjects=4 stages.{0,1}.steps=2 stages.{0,1}.batch=4 stages.{0,1}.resolution=32"
)
FEW_UPDATES = " --set training.steps=10 --set records.log_every=1"
FEW_PAIRS = [("--pairs 200", "--pairs 2"), ("--pairs 60", "--pairs 2"), ("", FEW_STEPS)]
QUICK_TRAINING = f" $(for key in {TINY}; do echo --set $key; done)"
ATTENTION = """
from jedi_toybox import load_pipeline
from PIL import Image
pipe, photo = load_pipeline(), Image.open("a.jpg")
"""
CHANGED = {  # what is replaced by what; "" stands for the end of the line or the beginning of the Python
    ("README.md", "jedi generate"): [("", FEW_STEPS)],
    ("README.md", "pipe = load_pipeline()"): [("generator=", "num_inference_steps=2, generator=")],
    ("README.md", "path/or/hub-id"): [("path/or/hub-id", "base")],
    ("README.md", "jedi toybox score"): FEW_PAIRS,
    ("model_card.md", "jedi toybox score"): FEW_PAIRS,
    ("model_card.md", "jedi photos score"): [("DREAMBENCH", "dreambooth"), ("", FEW_STEPS)],
    ("data.md", "--base"): [(STABLE, "base"), ("--resolution 512", "--resolution 64")],
    ("guide.md", "jedi generate"): [("", FEW_STEPS)],
    ("guide.md", "pipe = load_pipeline() "): [("generator=", "num_inference_steps=2, generator=")],
    ("guide.md", "quantize"): [("docs/images/", "")],
    ("guide.md", "AttentionRecord"): [("", ATTENTION), ("references=", "guidance_scale=1.0, references=")],
    ("guide.md", "path/or/hub-id"): [("path/or/hub-id", "base")],
    ("guide.md", "my_batches"): [("", BATCHES), ("path/to/stable-diffusion", "base")],
    ("guide.md", "jedi train toybox"): [("--minutes 90", "--device cpu"), ("", QUICK_TRAINING)],
    ("guide.md", "jedi toybox score"): FEW_PAIRS,
    ("methods.md", "less="): [
        ("steps=10", "steps=1"),
        ("fit_steps=20", "fit_steps=1"),
        ("prior_pictures=2", "prior_pictures=1"),
    ],
    ("references.md", "jedi generate"): [("", FEW_STEPS)],
    ("references.md", "second = Reference("): [("[first, second]", "[first, second], num_inference_steps=2")],
    ("scoring.md", "jedi evaluate toybox"): [
        ("", " --set set.subjects=2 --set set.samples=1 --set methods.0.steps=2 --set methods.1.steps=2")
    ],
    ("serving.md", "partial_images=2"): [("", CLIENT)],
    ("serving.md", "curl -F"): [("", " | tee job.json")],
    ("serving.md", "/jobs/ID"): [("ID", JOB)],
    ("synthesis.md", "jedi synthesize stages toybox"): [("--collages 2", "--collages 1")],
    ("synthesis.md", "jedi synthesize toybox"): [("", " --set 'objects=[bus, cup]' --set stages.collages=2")],
    ("training.md", "jedi toybox --out toys"): [("--sets 60", "--sets 6")],
    ("training.md", "jedi train overfit_photos"): [("", FEW_UPDATES)],
    ("training.md", "jedi generate"): [("", FEW_STEPS)],
    ("training.md", "jedi train lora"): [("", " --set base=base")],
    ("training.md", "encode_shards"): [(STABLE, "base"), ("512", "64"), ('"sets"', '"toy-sets"')],
}


def rule(table: dict, page: str, text: str) -> object:
    return next((value for (name, part), value in table.items() if name == page and part in text), None)


def changed(page: str, block: str, text: str) -> str:
    for (name, part), changes in CHANGED.items():
        if name == page and part in text:
            for old, new in changes:
                if old:
                    assert old in text or block == "shell", (page, old)
                    text = text.replace(old, new)
                else:
                    text = new + text if block == "python" else text + new
    return text


def pieces_of(page: Path) -> Iterator[Block]:
    """The page's Python blocks whole, its shell blocks command by command."""
    for block in blocks_of(page):
        if block.kind == "python" or re.match(r"\w+=\$\(", block.text):
            yield block
        else:
            yield from (Block("shell", line) for line in block.lines)


@pytest.mark.parametrize("table", [SKIPPED, CHANGED], ids=["skipped", "changed"])
def test_nothing_is_left_out_that_is_not_there(table: dict) -> None:
    texts = {name: [piece.text for piece in pieces_of(page)] for name, page in PAGES.items()}
    for page, part in table:
        assert any(part in text for text in texts[page]), f"{page} has no {part}"


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return make_environment(folder / "venv", build_wheel(folder))


@pytest.mark.slow
def test_the_wheel_alone_has_the_recipes_and_the_model(binaries: Path, tmp_path: Path) -> None:
    newcomer = Newcomer(binaries, tmp_path)
    assert str(binaries.parent) in newcomer.python("import jedi_diffusion; print(jedi_diffusion.__file__)")
    assert len(newcomer.shell("jedi recipes").splitlines()) == len(list(CONFIGS.rglob("*.yaml")))
    newcomer.shell("jedi train toybox --out run --dry-run")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_newcomer_gets_through(page: str, binaries: Path, tmp_path: Path) -> None:
    newcomer = Newcomer(binaries, tmp_path)
    bring(page, newcomer.folder)
    port = free_port()
    try:
        for kind, text in pieces_of(PAGES[page]):
            if rule(SKIPPED, page, text):
                continue
            text = changed(page, kind, text).replace("7860", str(port))
            if text.startswith("jedi serve"):
                newcomer.serve(text, port)
            elif kind == "shell":
                newcomer.shell(text)
            else:
                newcomer.python(text)
    finally:
        newcomer.leave()


def bring(page: str, folder: Path) -> None:
    """What the page takes for granted: photos of the reader's, a base model, a data set."""
    for number, name in enumerate(("a.png", "a.jpg", "b.jpg", "dog.jpg", "photo.jpg")):
        picture(number, size=160).save(folder / name)
    StableDiffusionPipeline(
        **sd_parts(), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(folder / "base")
    if page in ("model_card.md", "scoring.md", "training.md"):
        make_clone(folder / "dreambooth")
    if page == "data.md":
        for number in range(3):
            (folder / "photos" / f"dog{number}").mkdir(parents=True)
            for place in range(3):
                picture(10 * number + place, size=600).save(
                    folder / "photos" / f"dog{number}" / f"{place}.jpg"
                )
    if page == "serving.md":
        lines = PAGES[page].read_text(encoding="utf-8").splitlines()
        jobs = [json.loads(line) for line in lines if line.startswith('{"') and '"prompt"' in line]
        (folder / "jobs.jsonl").write_text("\n".join(json.dumps({**job, "steps": 2}) for job in jobs))
