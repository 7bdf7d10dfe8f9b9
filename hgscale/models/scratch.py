"""Small vision encoders of random weights, made on the spot: where no hub is at hand, and images are simple.

``EncoderConfig.path`` names them as ``scratch:resnet`` or ``scratch:vit``. They are folders as ``save_pretrained``
writes them, made once under runs, and trained like any other.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from hgscale import config as configs
from hgscale.errors import ConfigError
from hgscale.files import writing_folder
from hgscale.rng import key

SCRATCH = "scratch:"
SIDE = 32  # pixels that they see
KINDS = ("resnet", "vit")
VERSION = 1  # of what is made; another one is another folder


def scratch_encoder(path: str) -> Path:
    """The folder behind ``scratch:KIND``, made if it is not there.

    Raises:
        ConfigError: for another kind.
        RunError: if the disk refuses.
    """
    kind = path.removeprefix(SCRATCH)
    if kind not in KINDS:
        raise ConfigError(
            f"encoder.path={path}: {kind} is not made from scratch; use {', '.join(SCRATCH + known for known in KINDS)}"
        )
    folder = (configs.runs_home() / "encoders" / f"{kind}-{SIDE}-{VERSION}").absolute()
    if not (folder / "config.json").exists():
        with writing_folder(folder, replace=False) as partial:  # another process may be faster, and makes the same
            _make(kind, partial)
    return folder


def _make(kind: str, folder: Path) -> None:
    from transformers import (
        AutoModel,
        ConvNextImageProcessorPil,
        PretrainedConfig,
        ResNetConfig,
        ViTConfig,
        ViTImageProcessorPil,
    )

    config: PretrainedConfig
    if kind == "resnet":
        config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
        ConvNextImageProcessorPil(size={"shortest_edge": SIDE}).save_pretrained(folder)
    else:
        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            image_size=SIDE,
            patch_size=8,
        )
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(key(0, f"scratch/{kind}")))
        model = AutoModel.from_config(config)
    # Not model.save_pretrained, which loads DeepSpeed before anyone has told it where it is.
    config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
