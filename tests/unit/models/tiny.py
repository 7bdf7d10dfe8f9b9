"""Encoders small enough to be made on the spot: random weights, and a vocabulary of a few words and single letters."""

import string
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece
from transformers import (
    AutoModel,
    BertConfig,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    ConvNextImageProcessorPil,
    DistilBertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ViTConfig,
    ViTImageProcessorPil,
)

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["new", "york", "city", "bob", "##by", "is", "in", "great", "{", "}", "@", "#"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def save_text_encoder(folder: Path, kind: str = "bert", **own) -> Path:
    """A folder as save_pretrained writes it; kind is bert, distilbert (no token types) or modernbert (byte-level)."""
    tokenizer = _byte_level() if kind == "modernbert" else _word_piece()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    shared = {"vocab_size": len(fast), "max_position_embeddings": 64, "pad_token_id": fast.pad_token_id}
    configs = {
        "bert": lambda: BertConfig(**SHAPE, **shared, **own),
        "distilbert": lambda: DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32, **shared, **own),
        "modernbert": lambda: ModernBertConfig(
            **SHAPE, **shared, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, **own
        ),
    }
    fast.save_pretrained(folder)
    return save_model(folder, configs[kind]())


def save_vision_encoder(folder: Path, kind: str = "vit") -> Path:
    """As ``save_text_encoder``; kind is vit, clip (its vision half), clip_whole or resnet. Images are 16 x 16."""
    clip = {**SHAPE, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
    configs = {
        "vit": lambda: ViTConfig(**SHAPE, image_size=16, patch_size=8),
        "clip": lambda: CLIPVisionConfig(**clip),
        "clip_whole": lambda: CLIPConfig(
            text_config={**SHAPE, "num_hidden_layers": 2, "vocab_size": 50, "max_position_embeddings": 8},
            vision_config=clip,
            projection_dim=8,
        ),
        "resnet": lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"),
    }
    side = {"height": 16, "width": 16}
    processors = {
        "vit": lambda: ViTImageProcessorPil(size=side),
        "clip": lambda: CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=side),
        "resnet": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 16}),
    }
    processors[kind.partition("_")[0]]().save_pretrained(folder)
    return save_model(folder, configs[kind]())


def save_image(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """A PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_model(folder: Path, config: PretrainedConfig) -> Path:
    """Random weights, spread so far that outputs differ from input to input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def _word_piece() -> Tokenizer:
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = [*MARKS, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _with_marks(tokenizer)
    return tokenizer


def _byte_level() -> Tokenizer:
    pieces = [*MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("Ġ", "c"), ("b", "o"), ("bo", "b")]
    pieces += ["".join(merge) for merge in merges]
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _with_marks(tokenizer)
    return tokenizer


def _with_marks(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
