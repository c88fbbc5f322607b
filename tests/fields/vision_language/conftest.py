"""Tiny checkpoints with random weights, written to folders as published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LAYERS = {**SMALL, "intermediate_size": 64}


@pytest.fixture(scope="session")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="published encoders are read by transformers")


def filled(model: nn.Module, seed: int) -> nn.Module:
    """Weights that are far enough from zero for every part of the model to matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit"):
            near = 1.0 if parameter.ndim == 1 and "norm" in name and name.endswith("weight") else 0.0
            parameter.data.normal_(near, 0.2, generator=generator)
    return model.eval()


def clip_tokenizer(transformers: Any) -> Any:
    """Byte symbols, the same at the end of a word, four merges, and the two marks: 518 entries."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(code) for code in printable] + [chr(256 + place) for place in range(256 - len(printable))]
    merges = [("a", "n"), ("an", "d</w>"), ("p", "h"), ("o", "f</w>")]
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    assert len(vocabulary) == 518
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


@pytest.fixture(scope="session")
def clip_folder(transformers, tmp_path_factory) -> Path:
    """CLIP for images of 32 pixels, whose pictures are reduced to a shorter side of 32."""
    marks = {"bos_token_id": 516, "eos_token_id": 517, "pad_token_id": 517}
    config = transformers.CLIPConfig(
        text_config={**LAYERS, "vocab_size": 518, "max_position_embeddings": 77, **marks},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    filled(transformers.CLIPModel(config), 0).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)
    transformers.CLIPProcessor(images, clip_tokenizer(transformers)).save_pretrained(folder)
    return folder


def siglip_tokenizer(transformers: Any) -> Any:
    """Letters and the marks; no sentencepiece."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = [*marks, "▁", *"abcdefghijklmnopqrstuvwxyz.", *(f"<0x{code:02X}>" for code in range(256))]
    vocabulary = {word: number for number, word in enumerate(words)}
    return transformers.Siglip2Tokenizer(vocab=vocabulary, merges=[], model_max_length=24)


def _siglip_texts() -> dict[str, Any]:
    marks = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    return {**LAYERS, "vocab_size": 288, "max_position_embeddings": 24, "projection_size": 32, **marks}


@pytest.fixture(scope="session")
def siglip_folder(transformers, tmp_path_factory) -> Path:
    """SigLIP of fixed shape, the class of the published SigLIP and of most of SigLIP 2."""
    vision = {**LAYERS, "image_size": 32, "patch_size": 8}
    config = transformers.SiglipConfig(text_config=_siglip_texts(), vision_config=vision)
    folder = tmp_path_factory.mktemp("siglip")
    model = filled(transformers.SiglipModel(config), 1)
    model.logit_scale.data.fill_(1.5)
    model.save_pretrained(folder)
    transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    siglip_tokenizer(transformers).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def naflex_folder(transformers, tmp_path_factory) -> Path:
    """SigLIP 2 of variable shape, at most 16 patches of 8 pixels."""
    vision = {**LAYERS, "num_patches": 16, "patch_size": 8}
    config = transformers.Siglip2Config(text_config=_siglip_texts(), vision_config=vision)
    folder = tmp_path_factory.mktemp("naflex")
    filled(transformers.Siglip2Model(config), 2).save_pretrained(folder)
    transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    siglip_tokenizer(transformers).save_pretrained(folder)
    return folder


def _dino(transformers: Any, folder: Path, kind: str, seed: int, **more: int) -> Path:
    config = getattr(transformers, f"{kind}Config")(**SMALL, mlp_ratio=2, image_size=56, patch_size=14, **more)
    filled(getattr(transformers, f"{kind}Model")(config), seed).save_pretrained(folder)
    square = {"height": 28, "width": 28}
    transformers.BitImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=square, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino_folder(transformers, tmp_path_factory) -> Path:
    """DINOv2 with positions for 56 pixels and pictures of 28, cut out of a shorter side of 32."""
    return _dino(transformers, tmp_path_factory.mktemp("dino"), "Dinov2", 3)


@pytest.fixture(scope="session")
def registers_folder(transformers, tmp_path_factory) -> Path:
    """The same with registers."""
    folder = tmp_path_factory.mktemp("registers")
    return _dino(transformers, folder, "Dinov2WithRegisters", 4, num_register_tokens=2)
