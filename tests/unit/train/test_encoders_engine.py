"""Encoders of transformers under every engine: what is trained of them moves alike, the rest stays as it was."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from hgscale.models.config import EncoderConfig
from hgscale.models.encoders import TextEncoder, VisionEncoder
from hgscale.train.config import EngineConfig
from hgscale.train.engine import make_engine
from tests.unit.models.tiny import save_text_encoder, save_vision_encoder

TOKENS, SPANS = [["bob", "is", "in", "new", "york"], ["great", "city"]], [[(0, 1), (3, 5)], [(1, 2)]]
NUM_STEPS, LEARNING_RATE = 2, 0.01
# AdamW's eps of 0.1 keeps a step's slope in the gradient below 1 / 0.1; gradients differ by some 1e-6 of themselves.
TOLERANCE = 1e-5

SMALL = {"last": {"num_tuned_layers": 1}, "lora": {"lora_rank": 2}}


class Both(nn.Module):
    """A text and a vision encoder, in evaluation mode for runs to be compared; steps are without images at times."""

    def __init__(self, text: EncoderConfig, vision: EncoderConfig) -> None:
        super().__init__()
        self.text, self.vision = TextEncoder(text), VisionEncoder(vision)
        self.eval()

    def forward(self, num_images: int) -> Tensor:
        mentions, sentence = self.text(*self.text.tokenize(TOKENS, SPANS).collate([0, 1]))
        shape = (num_images, *self.vision.image_shape)
        images = self.vision(torch.linspace(-1, 1, 3 * 256 * num_images).reshape(shape))
        return mentions.float().square().mean() + sentence.float().square().mean() + images.float().square().sum()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return str(save_text_encoder(root / "text")), str(save_vision_encoder(root / "vision", "resnet"))


@pytest.fixture(scope="module")
def trained(folders):
    """State after two steps of an engine, the second without an image."""

    @cache
    def train(tuning: str, **engine: object) -> tuple[Both, dict[str, Tensor]]:
        shared = {"tuning": tuning} | SMALL.get(tuning, {})
        module = Both(EncoderConfig(path=folders[0], max_length=64, **shared), EncoderConfig(path=folders[1], **shared))
        made = make_engine(EngineConfig(eps=0.1, **engine), module, micro_batch=1, num_micro=1, device="cpu")
        for num_images in (2, 0)[:NUM_STEPS]:
            made.step([num_images], LEARNING_RATE)
        state = made.full_state_dict()
        assert state is not None
        return module, state

    return train


def fresh(folders, tuning: str) -> Both:
    shared = {"tuning": tuning} | SMALL.get(tuning, {})
    return Both(EncoderConfig(path=folders[0], max_length=64, **shared), EncoderConfig(path=folders[1], **shared))


@pytest.mark.parametrize("tuning", ["full", "last", "lora"])
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_deepspeed_trains_encoders_as_plain_torch_does(folders, trained, tuning, zero_stage):
    _, expected = trained(tuning, name="torch")
    _, found = trained(tuning, zero_stage=zero_stage)
    before = fresh(folders, tuning)
    moved = {name for name, parameter in before.named_parameters() if parameter.requires_grad}
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=TOLERANCE, msg=name)
        if name not in moved:
            assert torch.equal(found[name], tensor), name
    assert any(not torch.equal(found[name], before.state_dict()[name]) for name in moved)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_bf16_weights_take_pixels_as_they_come(trained, tuning):
    _, state = trained(tuning, zero_stage=3, precision="bf16")
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())


def test_the_state_is_loaded_into_a_fresh_encoder(folders, trained):
    module, state = trained("lora", zero_stage=2)
    again = fresh(folders, "lora")
    again.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(again(2), module(2), rtol=1e-5, atol=1e-5)
