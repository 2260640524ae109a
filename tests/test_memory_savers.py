"""What saves memory in diffusers, on joint models of every family: the same pictures, or one sentence."""

import importlib.util
import shutil
from typing import NamedTuple

import numpy as np
import pytest
import torch
from diffusers import (
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    PipelineQuantizationConfig,
    TorchAoConfig,
)
from safetensors.torch import save_file

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.errors import ModelError
from tests.helpers.small_klein import klein_parts, save_klein
from tests.helpers.small_pipelines import save_sd14, sd_parts
from tests.helpers.small_published import sd3_parts

CPU = torch.device("cpu")
OFFLOADING = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(),
    "every layer": lambda pipe: offload_every_layer(pipe),
    "group": lambda pipe: pipe.enable_group_offload(CPU, offload_type="leaf_level"),
}
MAKERS = {
    "sd": lambda: JeDiPipeline(**sd_parts(in_channels=9)),
    "klein": lambda: JeDiPipeline(**klein_parts(), unet=None),
    "sd3": lambda: JeDiPipeline(**sd3_parts(), unet=None),
}


def made(kind):
    pipe = MAKERS[kind]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **given):
    photos = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    given = {"references": photos, "num_inference_steps": 1, "height": 64, "width": 64, **given}
    return pipe("a dog", generator=torch.Generator().manual_seed(3), output_type="np", **given).images


class Placed(NamedTuple):
    """What accelerate's hooks say of where a module runs."""

    execution_device: torch.device = CPU


def offload_every_layer(pipe):
    """As accelerate does on a GPU: weights are there while their own layer runs, and nowhere else."""
    for component in (each for each in pipe.components.values() if isinstance(each, torch.nn.Module)):
        component._hf_hook = Placed()
        for layer in [each for each in component.modules() if each._parameters]:
            kept = {name: weight for name, weight in layer._parameters.items() if weight is not None}
            away = {name: torch.nn.Parameter(weight.to("meta")) for name, weight in kept.items()}
            layer._parameters.update(away)
            layer._hf_hook = Placed()
            layer.register_forward_pre_hook(lambda each, _, own=kept: each._parameters.update(own))
            layer.register_forward_hook(lambda each, _, made, own=away: each._parameters.update(own))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="accelerate cannot do it on a CPU")


@pytest.mark.parametrize(
    "how", ["model", "group", "every layer", pytest.param("sequential", marks=needs_gpu)]
)
@pytest.mark.parametrize("kind", MAKERS)
def test_offloading_changes_no_picture(kind, how):
    """With every step's references, cached ones, and kept ones."""
    want = {coupling: draw(made(kind), coupling=coupling) for coupling in ("joint", "cached")}
    pipe = made(kind)
    OFFLOADING[how](pipe)
    for coupling, picture in want.items():
        np.testing.assert_allclose(draw(pipe, coupling=coupling), picture, atol=1e-5)
    photos = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    kept = pipe.encode_references(photos, height=64, width=64)
    np.testing.assert_allclose(draw(pipe, references=kept), want["cached"], atol=1e-5)


@pytest.mark.parametrize("kind", ["sd", "klein"])
def test_an_autoencoder_in_slices_makes_the_same_pictures(kind):
    pipe = made(kind)
    want = draw(pipe, num_images_per_prompt=2)
    pipe.vae.enable_slicing()
    np.testing.assert_allclose(draw(pipe, num_images_per_prompt=2), want, atol=1e-5)


def test_an_autoencoder_in_tiles_makes_the_pictures_of_the_published_pipeline():
    parts = klein_parts()
    theirs, ours = Flux2KleinPipeline(**parts, is_distilled=True), JeDiPipeline(**parts, unet=None)
    theirs.set_progress_bar_config(disable=True)
    ours.set_progress_bar_config(disable=True)
    size = {"height": 96, "width": 128}
    whole = draw(ours, references=(), guidance_scale=1.0, **size)
    ours.vae.enable_tiling()
    ours.vae.tile_sample_min_size, ours.vae.tile_latent_min_size = 64, 8
    tiled = draw(ours, references=(), guidance_scale=1.0, **size)
    want = theirs(
        prompt="a dog", num_inference_steps=1, guidance_scale=1.0, output_type="np",
        generator=torch.Generator().manual_seed(3), **size,
    ).images  # fmt: skip
    np.testing.assert_allclose(tiled, want, atol=1e-4)
    assert abs(tiled - whole).max() > 1e-3


class Asked(PipelineQuantizationConfig):
    """Notes which parts diffusers asks it about; quantizes none."""

    def __init__(self):
        super().__init__(
            quant_backend="bitsandbytes_4bit",
            quant_kwargs={"load_in_4bit": True},
            components_to_quantize=["transformer"],
        )
        self.parts = []

    def _resolve_quant_config(self, is_diffusers=True, module_name=None):
        self.parts.append(module_name)


def test_quantization_reaches_every_part_and_names_the_package_that_it_lacks(tmp_path):
    save_klein(tmp_path / "klein")
    save_sd14(tmp_path / "sd")
    for folder, load, network in (
        ("klein", JeDiPipeline.from_pretrained, "transformer"),
        ("sd", JeDiPipeline.from_single_image_model, "unet"),
    ):
        asked = Asked()
        load(tmp_path / folder, quantization_config=asked)
        assert {network, "vae", "text_encoder"} <= set(asked.parts)
    if importlib.util.find_spec("bitsandbytes") is None:
        config = PipelineQuantizationConfig(
            quant_backend="bitsandbytes_4bit",
            quant_kwargs={"load_in_4bit": True},
            components_to_quantize=["transformer"],
        )
        with pytest.raises(ModelError, match=r"cannot be loaded: .*bitsandbytes"):
            JeDiPipeline.from_pretrained(tmp_path / "klein", quantization_config=config)


def test_weights_of_8_bits_through_torchao(tmp_path):
    """Where the package is there, as bitsandbytes cannot do without a GPU."""
    torchao = pytest.importorskip("torchao.quantization")
    theirs = save_klein(tmp_path / "klein")
    kind = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    config = PipelineQuantizationConfig(quant_mapping={"transformer": kind})
    pipe = JeDiPipeline.from_pretrained(tmp_path / "klein", quantization_config=config)
    quantized = {type(each.data).__name__ for each in pipe.transformer.parameters()}
    assert quantized - {type(each.data).__name__ for each in theirs.transformer.parameters()}
    whole = JeDiPipeline.from_pretrained(tmp_path / "klein")
    for coupling in ("joint", "cached"):
        got, want = (draw(each, coupling=coupling) for each in (pipe, whole))
        assert 0 < abs(got - want).max() < 0.05


def test_a_quantizer_that_misses_its_device_is_one_sentence(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("No GPU found. A GPU is needed for quantization.")

    save_klein(tmp_path / "klein")
    monkeypatch.setattr(Flux2Transformer2DModel, "from_pretrained", fail)
    with pytest.raises(ModelError, match=r"klein cannot be loaded: No GPU found\."):
        JeDiPipeline.from_pretrained(tmp_path / "klein")


def test_parts_that_are_given_need_no_files(tmp_path):
    theirs = save_klein(tmp_path / "klein")
    shutil.rmtree(tmp_path / "klein" / "transformer")
    shutil.rmtree(tmp_path / "klein" / "text_encoder")
    given = {"transformer": theirs.transformer, "text_encoder": theirs.text_encoder}
    pipe = JeDiPipeline.from_pretrained(tmp_path / "klein", **given)
    assert pipe.transformer is theirs.transformer
    with pytest.raises(ModelError, match="no folder text_encoder"):
        JeDiPipeline.from_pretrained(tmp_path / "klein")


def test_a_transformer_in_a_single_file(tmp_path):
    folder = tmp_path / "klein"
    theirs = save_klein(folder)
    file = tmp_path / "transformer.safetensors"
    with torch.no_grad():
        theirs.transformer.proj_out.weight.mul_(2)
    save_file(theirs.transformer.state_dict(), file)
    for each in (folder / "transformer").glob("*.safetensors*"):
        each.unlink()  # the configuration is enough
    pipe = JeDiPipeline.from_pretrained(folder, transformer=file)
    for name, weight in theirs.transformer.state_dict().items():
        torch.testing.assert_close(pipe.transformer.state_dict()[name], weight)


def write_gguf(path, state):
    """Matrices quantized to 8 bits where their rows are whole blocks, as published files are."""
    gguf = pytest.importorskip("gguf")
    writer, eight_bits = gguf.GGUFWriter(str(path), "flux"), gguf.GGMLQuantizationType.Q8_0
    for name, weight in state.items():
        values = weight.numpy()
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(values, eight_bits), raw_dtype=eight_bits)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_transformer_in_a_gguf_file(tmp_path):
    """Its pictures are those of the weights to what 8 bits leave; another network's file is refused."""
    theirs = save_klein(tmp_path / "klein")
    want = draw(JeDiPipeline.from_pretrained(tmp_path / "klein"))
    write_gguf(tmp_path / "q8.gguf", theirs.transformer.state_dict())
    pipe = JeDiPipeline.from_pretrained(tmp_path / "klein", transformer=tmp_path / "q8.gguf")
    assert any(each.dtype == torch.uint8 for each in pipe.transformer.parameters())
    got = draw(pipe)
    assert 0 < abs(got - want).max() < 0.02
    write_gguf(tmp_path / "llama.gguf", {"model.layers.0.weight": torch.zeros(4, 32)})
    with pytest.raises(ModelError, match=r"llama.gguf holds no Flux2Transformer2DModel .* are missing"):
        JeDiPipeline.from_pretrained(tmp_path / "klein", transformer=tmp_path / "llama.gguf")


@pytest.mark.parametrize("kind", ["other", "gguf", "text", "missing", "pickle"])
def test_a_file_that_is_no_transformer_is_named(kind, tmp_path):
    save_klein(tmp_path / "klein")
    file = tmp_path / f"{kind}.{'bin' if kind == 'pickle' else 'gguf'}"
    if kind == "other":
        save_file({"model.layers.0.weight": torch.zeros(2, 2)}, file)
    elif kind == "gguf":
        file.write_bytes(b"GGUF" + bytes(20))  # version 0, no tensors
    elif kind != "missing":
        file.write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match=f"{kind}.(gguf|bin)"):
        JeDiPipeline.from_pretrained(tmp_path / "klein", transformer=file)
