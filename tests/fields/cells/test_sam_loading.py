"""Published SAM: tiny models with random weights, written as others publish them, at another size."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.fields.cells.sam.files import load_adapter, load_segmenter, save_adapter, save_segmenter
from acclimate.fields.cells.sam.loading import load_sam
from acclimate.fields.cells.sam.published import size_of
from acclimate.fields.cells.sam.sizes import PAPER, UNIT, Size

FRESH = ("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps.", "mask_decoder.iou_prediction_head.")
NATIVE, OTHER = 96, 64
VISION = {
    "hidden_size": 32,
    "output_channels": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": NATIVE,
    "patch_size": 8,
    "mlp_dim": 50,
    "window_size": 5,
    "global_attn_indexes": [1],
    "num_pos_feats": 16,
}
PROMPT = {"hidden_size": 32, "image_size": NATIVE, "patch_size": 8}


def published(seed: int = 0, vision: dict[str, Any] | None = None, **decoder: Any) -> Any:
    config = transformers.SamConfig(
        vision_config={**VISION, **(vision or {})},
        prompt_encoder_config=PROMPT,
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 48, "iou_head_hidden_dim": 16, **decoder},
    )
    model = transformers.SamModel(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        near = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data.normal_(near, 0.2, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sam")
    published().save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("no network is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def bilinear(table: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The first two axes resized, from the definition: pixel centres, and the edge goes on outside."""
    for axis, size in enumerate((rows, columns)):
        old = table.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, old - 1)
        part = (place - low).reshape([-1 if each == axis else 1 for each in range(table.ndim)])
        table = np.take(table, low, axis) * (1 - part) + np.take(table, high, axis) * part
    return table


def test_at_the_native_size_answers_are_those_of_the_checkpoint(folder: Path) -> None:
    model, images = load_sam(folder, image_size=NATIVE), torch.rand(2, 3, NATIVE, NATIVE)
    assert not model.training and model.size.image == NATIVE
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.sam.named_parameters():
        if name.startswith(FRESH):
            parameter.data.normal_(0, 0.2, generator=generator)
    fresh = {name: value for name, value in model.sam.state_dict().items() if name.startswith(FRESH)}
    source = published(num_multimask_outputs=2, iou_head_hidden_dim=32)
    source.load_state_dict({**published().state_dict(), **fresh}, strict=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        seen, expected = model(images), source(pixel_values=pixels, multimask_output=True)
        hidden = source.vision_encoder(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(seen.features, hidden.permute(0, 3, 1, 2), atol=1e-5)
    assert torch.allclose(seen.logits, expected.pred_masks[:, 0], atol=1e-4)
    assert seen.logits.std() > 0.1


def test_at_another_size_every_tensor_is_the_checkpoint_s_own_or_its_interpolation(folder: Path) -> None:
    source = published().state_dict()
    model = load_sam(folder, image_size=OTHER, rank=0)
    found = {name.removeprefix("sam."): value for name, value in model.state_dict().items()}
    resized = {"vision_encoder.pos_embed", *(f"vision_encoder.layers.1.attn.rel_pos_{axis}" for axis in "hw")}
    for name, value in source.items():
        if name.startswith(FRESH):
            continue
        expected = value
        if name in resized:
            table = value.double().numpy()
            new = bilinear(table[0], 8, 8)[None] if value.ndim == 4 else bilinear(table, 15, table.shape[1])
            expected = torch.from_numpy(new).float()
            assert expected.shape != value.shape
            assert torch.allclose(found.pop(name), expected, atol=1e-6), name
        else:
            assert torch.equal(found.pop(name), expected), name
    left = {name for name in found if name not in ("mean", "std")}
    assert all(name.startswith(FRESH) for name in left) and len(left) == 1 + 3 * 6 + 6
    assert model(torch.rand(1, 3, OTHER, OTHER)).logits.shape == (1, 2, 32, 32)


def test_only_what_is_fresh_depends_on_the_seed(folder: Path) -> None:
    before = torch.get_rng_state()
    first, other = (load_sam(folder, image_size=OTHER, parts=3, rank=2, seed=seed).state_dict() for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    different = {name.removeprefix("sam.") for name in first if not torch.equal(first[name], other[name])}
    assert {name for name in different if not name.startswith(FRESH)} == {
        f"vision_encoder.layers.{layer}.attn.qkv.down" for layer in range(3)
    }


def test_the_encoder_is_frozen_but_for_adapters(folder: Path) -> None:
    model = load_sam(folder, image_size=OTHER, rank=2)
    learned = [p for p in model.encoder.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learned) == 3 * 4 * 2 * 32
    assert all(p.requires_grad for p in model.sam.mask_decoder.parameters())


def renamed(name: str) -> str:
    """As Meta calls it."""
    pairs = [
        ("vision_encoder.layers.", "image_encoder.blocks."),
        ("vision_encoder.", "image_encoder."),
        ("patch_embed.projection.", "patch_embed.proj."),
        ("neck.conv1.", "neck.0."),
        ("neck.layer_norm1.", "neck.1."),
        ("neck.conv2.", "neck.2."),
        ("neck.layer_norm2.", "neck.3."),
        ("shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
        ("point_embed.", "point_embeddings."),
        ("mask_embed.conv1.", "mask_downscaling.0."),
        ("mask_embed.layer_norm1.", "mask_downscaling.1."),
        ("mask_embed.conv2.", "mask_downscaling.3."),
        ("mask_embed.layer_norm2.", "mask_downscaling.4."),
        ("mask_embed.conv3.", "mask_downscaling.6."),
        ("upscale_conv1.", "output_upscaling.0."),
        ("upscale_layer_norm.", "output_upscaling.1."),
        ("upscale_conv2.", "output_upscaling.3."),
        ("not_a_point_embeddings", "not_a_point_embed"),
    ]
    for old, new in pairs:
        name = name.replace(old, new)
    name = name.replace(".layer_norm", ".norm")
    heads = re.match(r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.(.*)", name)
    if heads:
        place, _, kind = heads[2].rpartition(".")
        name = f"{heads[1]}.layers.{('proj_in', 'layers.0', 'proj_out').index(place)}.{kind}"
    return name


def test_a_file_of_meta_s_gives_the_same(folder: Path, tmp_path: Path) -> None:
    tensors = {renamed(name): value for name, value in published().state_dict().items() if "shared_image" not in name}
    assert "image_encoder.blocks.1.attn.rel_pos_h" in tensors
    assert "mask_decoder.transformer.norm_final_attn.weight" in tensors
    assert "prompt_encoder.not_a_point_embed.weight" in tensors
    path = tmp_path / "sam_vit_t.pth"
    torch.save(tensors, path)
    for size in (NATIVE, OTHER):
        found, expected = load_sam(path, image_size=size), load_sam(folder, image_size=size)
        assert found.size == expected.size
        for name, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name
    torch.save({**tensors, "image_encoder.neck.4.weight": torch.zeros(2)}, path)
    with pytest.raises(
        ValueError, match=r"0 tensors are missing \(\), 1 are of no use \(vision_encoder.neck.4.weight\)"
    ):
        load_sam(path)
    tensors.pop("mask_decoder.iou_token.weight")
    torch.save(tensors, path)
    with pytest.raises(ValueError, match=r"1 tensors are missing \(mask_decoder.iou_token.weight\)"):
        load_sam(path)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds 1 tensors, such as weight, but no SAM"):
        load_sam(path)
    torch.save({"weight": Path("x")}, path)
    with pytest.raises(ValueError, match="can run code"):
        load_sam(path)
    with pytest.raises(FileNotFoundError):
        load_sam(tmp_path / "nowhere.pth")


def changed(folder: Path, target: Path, drop: tuple[str, ...] = (), **more: Tensor) -> Path:
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    kept = {name: v for name, v in load_file(folder / "model.safetensors").items() if not name.startswith(drop or "?")}
    save_file({**kept, **more}, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_nothing_is_made_up_for_what_is_missing(folder: Path, tmp_path: Path) -> None:
    table = ("vision_encoder.layers.1.attn.rel_pos_h",)
    with pytest.raises(
        ValueError, match=r"lacks 1 weights of SamModel, such as vision_encoder.layers.1.attn.rel_pos_h"
    ):
        load_sam(changed(folder, tmp_path / "a", table))
    with pytest.raises(ValueError, match="1 weights that SamModel has no place for, such as extra"):
        load_sam(changed(folder, tmp_path / "b", extra=torch.zeros(1)))
    load_sam(changed(folder, tmp_path / "c", FRESH), image_size=OTHER)
    with pytest.raises(ValueError, match=r"not of the shapes that its config.json says.*Save or fetch it again"):
        load_sam(changed(folder, tmp_path / "d", table, **{table[0]: torch.zeros(9, 8)}))


def test_what_is_no_such_sam_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_size is 100, expected a multiple of the 8"):
        load_sam(folder, image_size=100)
    with pytest.raises(ValueError, match=r"found no model at nobody/sam.*pass the path of a local folder"):
        load_sam("nobody/sam", local_files_only=True)
    with pytest.raises(ValueError, match="There is no folder"):
        load_sam(tmp_path / "nowhere")
    published(vision={"layer_norm_eps": 0.1}).save_pretrained(tmp_path / "eps")
    with pytest.raises(ValueError, match=r"has layer_norm_eps = 0.1 in its vision_config, expected 1e-06"):
        load_sam(tmp_path / "eps")
    config = transformers.SamVisionConfig(**VISION)
    transformers.SamVisionModel(config).save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match=r"found SamVisionModel at .*expected SAM"):
        load_sam(tmp_path / "vision")


def test_sizes_tell_themselves() -> None:
    assert Size.of(json.loads(json.dumps(PAPER.told()))) is PAPER and PAPER.told() == "paper"
    other = UNIT.at(128)
    assert other.grid == 16 and Size.of(json.loads(json.dumps(other.told()))) == other
    assert other.at(64) is UNIT
    config = PAPER.config(2)
    assert config.vision_config.mlp_dim == 3072 and UNIT.config(2).vision_config.mlp_dim == 96


def test_the_published_configuration_is_the_paper_s_size() -> None:
    with torch.device("meta"):
        model = transformers.SamModel(transformers.SamConfig())
    assert size_of(model, "facebook/sam-vit-base").at(224) is PAPER


def test_files_of_any_size(folder: Path, tmp_path: Path) -> None:
    model, images = load_sam(folder, image_size=OTHER, parts=3, rank=2), torch.rand(1, 3, OTHER, OTHER)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    again = load_segmenter(save_segmenter(model, tmp_path / "all.safetensors"))
    assert again.size == model.size and torch.equal(again(images).logits, model(images).logits)
    path = save_adapter(model, tmp_path / "adapter.safetensors")
    fresh = load_sam(folder, image_size=OTHER, parts=3, rank=2, seed=9)
    assert not torch.equal(fresh(images).logits, model(images).logits)
    assert torch.equal(load_adapter(fresh, path)(images).logits, model(images).logits)
    for wrong, what in (({"parts": 2}, "parts"), ({"rank": 3}, "rank"), ({"image_size": NATIVE}, "size, base")):
        with pytest.raises(ValueError, match=f"is of another {what}"):
            load_adapter(load_sam(folder, **{"image_size": OTHER, "parts": 3, "rank": 2, **wrong}), path)
