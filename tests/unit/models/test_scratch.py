from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from hgscale.errors import ConfigError
from hgscale.models import scratch
from hgscale.models.scratch import SIDE, scratch_encoder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", scratch.KINDS)
def test_an_encoder_is_made_once_and_loads_as_any_other(kind, home, monkeypatch):
    folder = scratch_encoder(f"scratch:{kind}")
    assert folder.is_relative_to(home)
    model = AutoModel.from_pretrained(folder)
    assert torch.isfinite(model(torch.zeros(1, 3, SIDE, SIDE)).last_hidden_state).all()
    monkeypatch.setattr(scratch, "_make", None)  # not called again
    assert scratch_encoder(f"scratch:{kind}") == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_another_process_made_meanwhile_stays(home, monkeypatch):
    make = scratch._make

    def slow(kind: str, folder: Path) -> None:
        make(kind, folder)
        theirs = home / "encoders" / f"{kind}-{SIDE}-{scratch.VERSION}"
        theirs.mkdir()
        (theirs / "config.json").write_text("theirs")

    monkeypatch.setattr(scratch, "_make", slow)
    assert (scratch_encoder("scratch:vit") / "config.json").read_text() == "theirs"


def test_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"scratch:bert: bert is not made from scratch; use scratch:resnet"):
        scratch_encoder("scratch:bert")
