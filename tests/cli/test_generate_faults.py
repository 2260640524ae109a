"""What `jedi generate` does with broken, hostile and impossible input: a message, and nothing half done."""

import io
import json
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from jedi_diffusion import costs, models

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def broken_model(joint_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(joint_model, tmp_path / "broken"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test when a model is loaded: what is wrong must be found before."""

    def load(*_: object) -> None:
        pytest.fail("the model was loaded before the request was checked")

    monkeypatch.setattr(models, "load_model", load)


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: object) -> None:
        pytest.fail("sampling began with a broken model")

    monkeypatch.setattr("jedi_diffusion.cli.generate.sample", call)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Rows 1 to 4: weights


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.usefixtures("no_sampling")
def test_row_1_pickle_renamed_to_safetensors(generate, broken_model, tmp_path) -> None:
    mark = tmp_path / "it-ran"
    (broken_model / UNET).write_bytes(pickle.dumps(Bomb(mark)))
    done = generate("--model", broken_model)
    assert done.status == 1
    assert UNET.name in done.err
    assert not mark.exists()


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.ckpt"])
def test_row_2_pickled_weights_in_a_folder(name, generate, broken_model, tmp_path) -> None:
    mark = tmp_path / "it-ran"
    (broken_model / UNET).unlink()
    (broken_model / "unet" / name).write_bytes(pickle.dumps(Bomb(mark)))
    done = generate("--model", broken_model)
    assert done.status == 1
    assert name in done.err
    assert "safetensors" in done.err
    assert not mark.exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.safetensors"])
def test_row_2_single_weights_file(name, generate, tmp_path) -> None:
    (tmp_path / name).write_bytes(b"weights")
    done = generate("--model", tmp_path / name)
    assert done.status == 1
    assert "convert" in done.err.lower()


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("fault", ["truncated", "huge header", "empty"])
def test_row_3_damaged_weights(fault, generate, broken_model) -> None:
    path = broken_model / UNET
    whole = path.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "huge header": struct.pack("<Q", 2**60) + whole[8:],
        "empty": b"",
    }
    path.write_bytes(damaged[fault])
    assert generate("--steps", 0).status == 2  # imports are not part of the measurement
    before = peak_megabytes()
    done = generate("--model", broken_model)
    assert peak_megabytes() - before < 200
    assert done.status == 1
    assert UNET.name in done.err


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("fault", ["shape", "nan", "missing", "unexpected"])
def test_row_4_wrong_tensors_are_named(fault, generate, broken_model) -> None:
    path = broken_model / UNET
    tensors = load_file(path)
    name = "conv_out.weight"
    if fault == "shape":
        tensors[name] = tensors[name][:, :4].contiguous()
    elif fault == "nan":
        tensors[name][0, 0, 0, 0] = float("nan")
    elif fault == "missing":
        del tensors[name]
    else:
        name = "conv_surprise.weight"
        tensors[name] = tensors["conv_out.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    done = generate("--model", broken_model)
    assert done.status == 1
    assert name in done.err


@pytest.mark.usefixtures("no_model")
def test_models_that_do_not_exist(generate, tmp_path) -> None:
    for name in (tmp_path / "nowhere", tmp_path, "no-such-model", "../../etc", "a/b/c"):
        done = generate("--model", name)
        assert done.status == 1
        assert str(name) in done.err


# Rows 5 to 8: pictures


def png_bomb(side: int) -> bytes:
    body = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(20_000_000))
    for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return body


MEASURE = """
import resource, sys
from jedi_diffusion.cli import main
from jedi_diffusion.cli import generate
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
status = main(sys.argv[1:])
print(status, peak() - before, "torch" in sys.modules)
"""


@pytest.mark.parametrize("side", [50_000, 12_000])
def test_row_5_pixel_bomb(side, tmp_path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bomb(side))
    words = ["generate", "--reference", path, "--prompt", "a", "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True)
    status, megabytes, torch_loaded = done.stdout.split()
    assert status == "1", done.stderr
    assert "bomb.png" in done.stderr
    assert "megapixels" in done.stderr
    assert int(megabytes) < 50
    assert torch_loaded == "False"


@pytest.mark.usefixtures("no_model")
def test_row_6_formats_and_text_bombs(generate, tmp_path) -> None:
    picture = Image.new("RGB", (8, 8))
    for kind in ("PPM", "ICO", "EPS", "TGA"):
        path = tmp_path / "picture.png"
        picture.save(path, kind)
        done = generate("--reference", path)
        assert done.status == 1
        assert "picture.png" in done.err
        assert "accepted formats" in done.err
    whole = io.BytesIO()
    picture.save(whole, "PNG")
    chunk = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(200_000_000))
    bomb = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(whole.getvalue()[:33] + bomb + whole.getvalue()[33:])
    done = generate("--reference", path)
    assert done.status == 1
    assert "picture.png" in done.err


@pytest.mark.usefixtures("no_model")
def test_row_7_damaged_pictures(generate, photo, tmp_path) -> None:
    whole = photo.read_bytes()
    faults = {"truncated.png": whole[:-200], "empty.png": b"", "letter.jpg": b"Dear user, ..."}
    for name, data in faults.items():
        (tmp_path / name).write_bytes(data)
        done = generate("--reference", photo, "--reference", tmp_path / name)
        assert done.status == 1
        assert name in done.err
        assert not (tmp_path / "out").exists()
    for path in (tmp_path / "missing.png", tmp_path, "/dev/zero", "https://example.com/a.png"):
        done = generate("--reference", path)
        assert done.status == 1
        assert str(path) in done.err


def test_row_8_every_form_of_a_picture_is_the_same_reference(generate, photo, tmp_path) -> None:
    with Image.open(photo) as picture:
        few = picture.quantize(64).convert("RGB")
    forms = {
        "plain.png": few,
        "palette.png": few.quantize(64),
        "alpha.png": few.convert("RGBA"),
        "a.webp": few,
    }
    rotated, exif = few.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    rotated.save(tmp_path / "rotated.png", exif=exif)
    for name, form in forms.items():
        form.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    few.save(tmp_path / "moving.png", save_all=True, append_images=[Image.new("RGB", few.size, "red")])
    results = {}
    for name in (*forms, "rotated.png", "moving.png"):
        done = generate("--reference", tmp_path / name, "--out", tmp_path / name.replace(".", "-"))
        assert done.status == 0, done.err
        made = tmp_path / name.replace(".", "-") / "a-robot-on-the-beach_0.png"
        results[name] = np.asarray(Image.open(made)).tobytes()
    assert len(set(results.values())) == 1
    few.convert("CMYK").save(tmp_path / "print.jpg")
    gray = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    done = generate(*("--reference", tmp_path / "print.jpg", "--reference", tmp_path / "deep.png"))
    assert done.status == 0, done.err


# Rows 9 and 10: counts, texts and numbers


@pytest.mark.usefixtures("no_model")
def test_row_9_counts(jedi, generate, photo, joint_model, tmp_path) -> None:
    done = jedi("generate", "--prompt", "a", "--out", tmp_path / "out", "--model", joint_model)
    assert done.status == 2
    assert "0 references" in done.err
    done = generate(*["--reference", photo] * 3, *["--reference-prompt", "a robot"] * 2)
    assert done.status == 2
    assert "2 reference prompts for 3 references" in done.err
    done = jedi("generate", "--reference", photo, "--out", tmp_path / "out")
    assert done.status == 2
    assert "prompt" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "words",
    [
        ("--prompt", "x" * 1_000_000),
        ("--prompt", "a robot\0 on the beach"),
        ("--prompt", "a \ud800 robot"),
        ("--reference-prompt", "a\0"),
        ("--guidance", "nan"),
        ("--guidance", "inf"),
        ("--guidance", "-1"),
        ("--image-guidance", "nan"),
        ("--steps", "1000000"),
        ("--steps", "0"),
        ("--seed", "-1"),
        ("--seed", str(2**80)),
        ("--size", "0"),
        ("--size", "100000"),
        ("--size", "33"),
        ("--batch", "0"),
        ("--images-per-prompt", "1000000"),
        ("--joint-targets", "--coupling", "cached"),
        ("--scheduler", "magic"),
    ],
    ids=lambda words: " ".join(words)[:40].encode("ascii", "replace").decode().replace("\0", "0"),
)
def test_row_10_texts_and_numbers(words, generate, tmp_path) -> None:
    done = generate(*words)
    assert done.status == 2
    assert len(done.err) < 2000
    assert not (tmp_path / "out").exists()


def test_row_10_numbers_hidden_in_settings(generate, jedi, tmp_path) -> None:
    assert generate().status == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    settings["options"]["guidance"] = float("nan")
    (tmp_path / "nan.json").write_text(json.dumps(settings))
    done = jedi("generate", "--from", tmp_path / "nan.json")
    assert done.status == 2
    assert "guidance" in done.err


def test_row_10_dropped_words_are_reported(generate) -> None:
    done = generate("--prompt", "a robot " * 200 + "on the moon")
    assert done.status == 0, done.err
    assert "dropped" in done.err
    assert "moon" in done.err or "robot" in done.err
    assert done.err.count("dropped") == 1


# Row 19: the disk


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("place", ["below a file", "a file", "read-only"])
def test_row_19_folder_cannot_be_written(place, generate, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    out = {"below a file": tmp_path / "file" / "out", "a file": tmp_path / "file", "read-only": "/proc/out"}[
        place
    ]
    done = generate("--out", out)
    assert done.status == 1
    assert str(out) in done.err


def small_disk(folder: Path, size: str) -> None:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip("no right to mount a small disk here")


def test_row_19_full_disk(generate, tmp_path) -> None:
    disk = tmp_path / "disk"
    small_disk(disk, "64k")
    try:
        first = generate("--out", disk, "--seed", 1)
        assert first.status == 0, first.err
        good = {path.name: path.read_bytes() for path in disk.iterdir()}
        done = generate("--out", disk, "--seed", 1, "--steps", 3, "--images-per-prompt", 20, "--overwrite")
        assert done.status == 1
        assert str(disk) in done.err
        assert "No space left" in done.err
        kept = (disk / "a-robot-on-the-beach_1.png").read_bytes()
        with Image.open(io.BytesIO(kept)) as picture:
            picture.load()
        assert set(good) <= {path.name for path in disk.iterdir()}
        assert not [path for path in disk.iterdir() if path.name.startswith(".")]
        for path in disk.glob("*.png"):
            with Image.open(path) as picture:
                picture.load()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_row_19_file_size_limit(generate, tmp_path) -> None:
    """The same without the right to mount: writes fail in the middle of a file."""
    assert generate().status == 0
    good = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        done = generate("--steps", 3, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.status == 1
    assert str(tmp_path / "out") in done.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == good


def test_a_size_that_memory_does_not_hold_is_a_sentence_before_the_work(
    generate, monkeypatch, tmp_path
) -> None:
    """By the model's own figures, on a machine that has 50 MB left."""
    monkeypatch.setattr(costs, "LEAST_SIDE", 64)
    monkeypatch.setattr(costs, "free_memory", lambda device: 50 * 2**20)
    done = generate("--size", 512)
    assert done.status == 2
    assert "1 picture of 512x512 pixels at once with 1 reference would take about" in done.err
    assert "smaller size" in done.err
    assert not list((tmp_path / "out").glob("*.json"))
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("a small picture needs no measuring"))
    assert generate("--size", 32).status == 0


def test_settings_are_not_taken_from_a_picture(jedi, generate, tmp_path) -> None:
    assert generate().status == 0
    picture = next((tmp_path / "out").glob("a-robot*.png"))
    done = jedi("generate", "--from", picture)
    assert done.status == 2
    assert str(tmp_path / "out" / "settings.json") in done.err
