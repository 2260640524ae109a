"""`jedi serve --engine ray`: wrong words, and a real model behind it from the first line to Ctrl-C."""

import base64
import io
import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from PIL import Image

from jedi_diffusion import models


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--replicas", 2), "go with --engine ray"),
        (("--ray-address", "auto"), "go with --engine ray"),
        (("--engine", "ray", "--replicas", -1), "--replicas is -1"),
        (("--engine", "ray", "--ray-address", "ray://head:10001"), "ray:// is not supported"),
        (("--engine", "ray"), "pip install 'jedi-diffusion[serve-ray]'"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(words, said, jedi, monkeypatch) -> None:
    for name in ("ray", "ray.serve"):  # as if they were not installed
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(models, "load_model", lambda *_: pytest.fail("the model was loaded first"))
    done = jedi("serve", "--port", 0, *words)
    assert done.status == 2
    assert said in done.err


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pictures_are_those_of_the_local_engine(joint_model, tmp_path) -> None:
    words = ["serve", "--engine", "ray", "--replicas", "2", "--model", str(joint_model), "--port", "0"]
    words += ["--device", "cpu", "--batch", "1", "--grace", "1"]
    kept = {name: value for name, value in os.environ.items() if name not in ("JEDI_TOKENS", "RAY_ADDRESS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "jedi_diffusion", *words],
        cwd=tmp_path,
        env=kept | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []
    try:
        line = process.stdout.readline()
        family = psutil.Process(process.pid).children(recursive=True)
        assert "http://127.0.0.1:" in line
        pictures = {}
        with httpx.Client(base_url=line.split(" at ")[1].split()[0], timeout=300) as client:
            for seed in range(3):
                given = {"prompt": "a robot", "seed": seed, "steps": 3}
                (row,) = client.post("/v1/images/generations", json=given).json()["data"]
                pictures[seed] = Image.open(io.BytesIO(base64.b64decode(row["b64_json"]))).tobytes()
        assert pictures == {seed: local_picture(joint_model, seed) for seed in pictures}
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, "Stopped." in out) == (0, True)
        end = time.monotonic() + 30
        while any(each.is_running() for each in family):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        for each in [*family, process]:
            if each is process or each.is_running():
                each.kill()
        process.communicate()


def local_picture(model, seed: int) -> bytes:
    import torch

    from jedi_diffusion.calls import Call
    from jedi_diffusion.cli.serve import load
    from jedi_diffusion.options import SizedSampling

    torch.set_num_threads(1)  # as a replica has
    runner, _ = load(str(model), "cpu", "auto")
    call = Call(["a robot"], [seed], [], [], SizedSampling(height=32, width=32, steps=3))
    return runner.run(call, lambda *_: None)[0].tobytes()
