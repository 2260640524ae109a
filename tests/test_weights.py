"""Bad weights: pickles, truncation, hostile headers, wrong shapes, NaN (rows 1 to 4 of the fault list)."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from jedi_diffusion.errors import ModelError
from jedi_diffusion.weights import check_model_folder, check_weights_file, load_strict
from tests.helpers.small_models import small_sd14_unet, tiny_unet

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A tiny random model in the real layout."""
    tiny_unet().save_pretrained(tmp_path / "unet")
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "vae")
    text = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "num_hidden_layers": 1}
    CLIPTextModel(CLIPTextConfig(**text, **tokens)).save_pretrained(tmp_path / "text_encoder")
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": [None, None],
    }
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline"} | classes)
    )
    return tmp_path


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_sound_folder_passes(folder):
    check_model_folder(folder)


def test_a_component_that_the_index_leaves_out_is_not_asked_for(folder):
    index = json.loads((folder / "model_index.json").read_text())
    del index["vae"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / VAE).unlink()
    check_model_folder(folder)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_renamed_pickle_is_refused_and_not_run(folder, protocol):
    trap = folder / "ran"
    (folder / UNET).write_bytes(pickle.dumps(Trap(trap), protocol=protocol) * 50)
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors"):
        check_model_folder(folder)
    assert not trap.exists()


def test_a_renamed_torch_archive_is_refused(folder):
    with zipfile.ZipFile(folder / UNET, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap(folder / "ran")))
    with pytest.raises(ModelError, match="is a pickle under a safetensors name; it was not opened"):
        check_model_folder(folder)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt", ".pth"])
def test_pickled_weights_are_refused_with_the_way_to_convert(folder, suffix):
    (folder / UNET).rename((folder / UNET).with_suffix(suffix))
    with pytest.raises(ModelError, match=rf"\{suffix} is a pickle.*save_pretrained\(folder, safe"):
        check_model_folder(folder)


def test_a_pickle_beside_safetensors_does_not_matter(folder):
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"never read")
    check_model_folder(folder)


@pytest.mark.parametrize("component", [UNET, VAE, TEXT])
@pytest.mark.parametrize("keep", [0, 5, 9, 0.5, -1])
def test_truncated_files_are_refused(folder, component, keep):
    path = folder / component
    size = path.stat().st_size
    length = keep if isinstance(keep, int) else int(size * keep)
    os.truncate(path, length % size)
    with pytest.raises(ModelError, match=f"{path.name} is (truncated|damaged)"):
        check_model_folder(folder)


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9], ids=str)
def test_a_huge_header_length_costs_no_memory(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=rf"model\.safetensors is truncated.*{length}"):
            check_weights_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_huge_header_that_is_really_there_costs_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**32))
        file.truncate(2**32 + 8)  # a sparse file
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"has a header of 4294967296 bytes"):
            check_weights_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"not json", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a table"),
        (b'{"w": 3}', "tensor 'w' makes no sense"),
        (b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "tensor 'w' makes no sense"),
        (b'{"w": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}', "tensor 'w' makes no sense"),
        (b'{"w": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}', "tensor 'w' makes no sense"),
        (b'{"w": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}', "tensor 'w' makes no sense"),
        (b'{"w": {"dtype": "F32", "shape": [1e9], "data_offsets": [0, 4]}}', "tensor 'w' makes no sense"),
        (b'{"w": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}', "tensors need 396 bytes"),
    ],
)
def test_malformed_headers_are_refused(tmp_path, header, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match=message):
        check_weights_file(path)


@pytest.mark.parametrize(
    ("component", "name"),
    [
        (UNET, "conv_in.weight"),
        (VAE, "decoder.conv_in.bias"),
        (TEXT, "encoder.layers.0.mlp.fc1.weight"),
    ],
)
@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape", "nan"])
def test_the_wrong_tensor_is_named(folder, component, name, fault):
    def edit(tensors):
        if fault == "missing":
            del tensors[name]
        elif fault == "unexpected":
            tensors["extra." + name] = torch.zeros(1)
        elif fault == "shape":
            tensors[name] = tensors[name][:-1].clone()
        else:
            tensors[name].view(-1)[3] = float("nan")

    change(folder / component, edit)
    shown = {"missing": f"1 missing .{name}", "unexpected": f"1 unexpected .extra.{name}"}
    shown |= {"shape": rf"1 of the wrong shape .{name} is \[\d+.*\], not \[", "nan": f"NaN.*tensor {name}"}
    with pytest.raises(ModelError, match=shown[fault]):
        check_model_folder(folder)


def test_many_wrong_tensors_are_counted(folder):
    change(folder / UNET, lambda tensors: [tensors.pop(name) for name in list(tensors)[:20]])
    with pytest.raises(ModelError, match=r"20 missing .*and 17 more"):
        check_model_folder(folder)


def test_older_names_are_known(folder):
    """Early checkpoints: CLIP's prefix and position_ids, the autoencoder's first attention names."""

    def old_text(tensors):
        renamed = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    def old_vae(tensors):
        pairs = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in list(tensors):
            for new, old in pairs.items():
                if f".{new}." in name:
                    tensors[name.replace(new, old)] = tensors.pop(name)

    change(folder / TEXT, old_text)
    change(folder / VAE, old_vae)
    assert any("proj_attn" in name for name in load_file(folder / VAE))
    check_model_folder(folder)
    AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True)


def shard(folder):
    (folder / UNET).unlink()
    small_sd14_unet().save_pretrained(folder / "unet", max_shard_size="500KB")
    return sorted((folder / "unet").glob("*.safetensors"))


def test_shards_are_checked(folder):
    shards = shard(folder)
    assert len(shards) > 1
    check_model_folder(folder)
    change(shards[1], lambda tensors: tensors[sorted(tensors)[0]].view(-1)[0].fill_(float("inf")))
    with pytest.raises(ModelError, match=shards[1].name):
        check_model_folder(folder)
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"{shards[1].name} cannot be read"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["../../other.safetensors", "/etc/passwd", 7])
def test_an_index_cannot_point_outside_its_folder(folder, name):
    shard(folder)
    index = folder / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": name}}))
    with pytest.raises(ModelError, match="not a plain file name"):
        check_model_folder(folder)


def test_variants(folder):
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(ModelError, match=r"has no .*model.safetensors; it holds .*fp16.*give its variant"):
        check_model_folder(folder)
    for path in (VAE, TEXT):
        (folder / path).rename((folder / path).with_suffix(".fp16.safetensors"))
    check_model_folder(folder, variant="fp16")


def test_folders_that_are_no_models(folder, tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        check_model_folder(tmp_path / "nowhere")
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config.json is not valid JSON"):
        check_model_folder(folder)
    (folder / "unet/config.json").write_text(
        '{"_class_name": "UNet2DConditionModel", "layers_per_block": "x"}'
    )
    with pytest.raises(ModelError, match="does not describe a model"):
        check_model_folder(folder)
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelError, match=r"model_index.json cannot be read"):
        check_model_folder(folder)


def test_load_strict_loads_what_fits(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_strict(target, tmp_path / "w.safetensors")
    assert torch.equal(target.weight, source.weight)
    other = nn.Linear(3, 2)
    load_strict(other, source.state_dict())
    assert torch.equal(other.weight, source.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.zeros(2, 4)}, r"weight is \[2, 4\], not \[2, 3\]"),
        ({"bias": torch.tensor([0.0, float("nan")])}, "NaN or infinity in tensor bias"),
        ({"scale": torch.zeros(1)}, "1 unexpected .scale"),
    ],
)
def test_load_strict_changes_nothing_when_it_refuses(changes, message):
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ModelError, match=message):
        load_strict(module, {"weight": torch.ones(2, 3), "bias": torch.ones(2)} | changes)
    torch.testing.assert_close(module.state_dict(), before)


def test_load_strict_reads_no_pickle(tmp_path):
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="only safetensors are accepted"):
        load_strict(nn.Linear(1, 1), tmp_path / "weights.pt")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_no_number_format_hides_what_is_not_finite(tmp_path, dtype, bad):
    weight = torch.ones(2, 3, dtype=dtype)
    save_file({"weight": weight, "bias": torch.ones(2, dtype=dtype)}, tmp_path / "sound.safetensors")
    weight[1, 2] = bad
    save_file({"weight": weight, "bias": torch.ones(2, dtype=dtype)}, tmp_path / "bad.safetensors")
    module = nn.Linear(3, 2, dtype=dtype)
    load_strict(module, tmp_path / "sound.safetensors")
    with pytest.raises(ModelError, match="NaN or infinity in tensor weight"):
        load_strict(module, tmp_path / "bad.safetensors")
    assert module.weight.isfinite().all()
