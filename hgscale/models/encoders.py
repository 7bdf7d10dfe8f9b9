"""Text and vision encoders of transformers, by name or local path: one vector per mention, text or image.

What is trained of them is a choice (``EncoderConfig.tuning``). A frozen encoder is a function of its input: it stays in
evaluation mode, without dropout, so that what it gives can be kept.

Axes: r rows (texts), l word pieces (padded), e mentions of a row (padded), t width of the text encoder, k images,
v width of the vision encoder, h w pixels; c contexts, n word pieces of all contexts, m mentions of all contexts.
"""

import copy
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging

from hgscale.errors import ConfigError, DataError
from hgscale.models.config import EncoderConfig
from hgscale.models.scratch import SCRATCH, scratch_encoder

PACKAGE = "package:"
_FILES = ("*.json", "*.txt", "*.model")  # of a repository on the hub, beside its weights
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_LONGEST = 32  # sides of an image, longer over shorter, that are kept
_TEXT_FIELDS = ("pool", "mention", "max_length", "markers", "opening", "closing")


# Places


def find_encoder(path: str) -> Path:
    """The local folder behind ``EncoderConfig.path``; what is on the hub is fetched.

    Raises:
        ConfigError: if there is no model behind it.
    """
    if path.startswith(PACKAGE):
        folder = _inside_package(path)
    elif path.startswith(SCRATCH):
        folder = scratch_encoder(path)
    elif Path(path).expanduser().is_dir():
        folder = Path(path).expanduser()
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ConfigError(f"encoder.path={path}: no such directory; give one that save_pretrained wrote")
    else:
        folder = _from_hub(path)
    if not (folder / "config.json").is_file() or not _weights_in(folder):
        raise ConfigError(
            f"encoder.path={path}: {folder} holds no model of transformers (config.json and model.safetensors); "
            "give a directory that save_pretrained wrote"
        )
    return folder


def _inside_package(path: str) -> Path:
    package, _, inside = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"encoder.path={path}: package {package} is not installed; install it, or give a directory")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(name, allow_patterns=[*_FILES, weights]))
            if _weights_in(folder):
                break
    except Exception as error:  # without a net, without the right, without such a name: each has a type of its own
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"encoder.path={name}: not a local directory, and not to be had from the hub ({type(error).__name__}: "
            f"{reason}); give a directory that save_pretrained wrote"
        ) from None
    return folder


def _weights_in(folder: Path) -> list[Path]:
    return [path for pattern in _WEIGHTS for path in folder.glob(pattern)]


def encoder_key(config: EncoderConfig) -> str:
    """A hash of all that decides the features of a frozen encoder: files of its folder, and how texts are read.

    -> 32 hex digits. Where the folder is, and fields that only training reads, do not matter.
    """
    folder = find_encoder(config.path)
    digest = hashlib.sha256()
    read = {*_weights_in(folder)} | {path for pattern in _FILES for path in folder.glob(pattern)}
    for path in sorted(read):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    fields = asdict(config)
    digest.update(repr([(name, fields[name]) for name in _TEXT_FIELDS]).encode())
    return digest.hexdigest()[:32]


# The body of an encoder, and what of it is trained


@contextmanager
def _quiet() -> Iterator[None]:
    """While this lasts transformers neither reports what it loads nor draws bars."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load(loader: Any, folder: Path, path: str, what: str, **options: Any) -> Any:
    """``loader.from_pretrained(folder)``, or one line that says what is wrong with the folder."""
    try:
        with _quiet():
            return loader.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(
            f"encoder.path={path}: its {what} cannot be loaded ({reason}); give a directory that save_pretrained wrote"
        ) from None


def _load_body(folder: Path, path: str) -> nn.Module:
    """The bare model, fp32, without the pooler that we do not use."""
    model, info = _load(AutoModel, folder, path, "model", dtype=torch.float32, output_loading_info=True)
    prefix = ""
    if isinstance(getattr(model, "vision_model", None), nn.Module):  # CLIP and its kin: text and vision side by side
        model, prefix = model.vision_model, "vision_model."
    if _has_parameters(getattr(model, "pooler", None)):  # often untrained in what is published, and never used here
        model.pooler = None
    own = {prefix + name for name in model.state_dict()}
    if missing := sorted(own & set(info["missing_keys"])):
        raise ConfigError(
            f"encoder.path={path}: its weights lack {missing[0]} and {len(missing) - 1} more, which would stay random; "
            "give a directory that save_pretrained wrote"
        )
    body: nn.Module = model
    return body


def _has_parameters(module: Any) -> bool:
    return isinstance(module, nn.Module) and any(True for _ in module.parameters())


class _Encoder(nn.Module):
    """A body of transformers, of which only what ``config.tuning`` says is trained.

    Attributes:
        config: as given.
        model: the body, fp32. With tuning=lora its layers hold the added matrices as ordinary parameters.
        hidden_size: width of what it gives.
    """

    hidden_size: int

    def __init__(self, config: EncoderConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.folder = find_encoder(config.path)
        with torch.random.fork_rng(devices=[]):  # LoRA's matrices are drawn from torch's global generator
            torch.default_generator.manual_seed(seed)
            self.model = _load_body(self.folder, config.path)
            _fix_statistics(self.model)
            self._choose_trained()

    def _choose_trained(self) -> None:
        if self.config.tuning != "full":
            self.model.requires_grad_(False)
        if self.config.tuning == "last":
            for parameter in _last_layers(self.model, self.config):
                parameter.requires_grad_(True)
        if self.config.tuning == "lora":
            _add_lora(self.model, self.config.lora_rank)

    def _drop_unused(self, *trial: Tensor) -> None:
        """Do not train what no output depends on, for it gets no gradient; tell the others' learning rate."""
        outputs = self.eval()(*trial)
        used = _leaves([outputs] if isinstance(outputs, Tensor) else list(outputs))
        self.train()
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in used)
            if parameter.requires_grad:
                parameter.learning_rate = self.config.learning_rate  # type: ignore[attr-defined]

    def train(self, mode: bool = True) -> "_Encoder":
        """As torch's, but a frozen encoder stays without dropout."""
        super().train(mode)
        if self.config.tuning == "frozen":
            self.model.eval()
        return self

    def _grad(self) -> Any:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.config.tuning != "frozen")

    def merged(self) -> nn.Module:
        """A copy of the body as transformers knows it, what LoRA added being part of the weights."""
        model = copy.deepcopy(self.model)
        if self.config.tuning == "lora":
            from peft.tuners.tuners_utils import BaseTunerLayer

            for name, module in list(model.named_modules()):
                if isinstance(module, BaseTunerLayer):
                    module.merge()
                    model.set_submodule(name, module.get_base_layer())
            del model.peft_config
        return model

    def _save(self, directory: Path, reader: Any) -> None:
        with _quiet():
            self.merged().save_pretrained(directory)  # type: ignore[operator]
            reader.save_pretrained(directory)


class _FixedNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics that were loaded, which a rank's few images would move its own way.

    Written out, because torch takes no bf16 weights beside fp32 statistics, which DeepSpeed makes of it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[k c h w] -> the same."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = torch.rsqrt(self.running_var.float() + self.eps) * self.weight
        shift = self.bias - self.running_mean * scale
        scale, shift = (rearrange(part, "c -> c 1 1") for part in (scale, shift))
        return (input * scale + shift).to(input.dtype)


def _fix_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
            module.__class__ = _FixedNorm


def _last_layers(model: nn.Module, config: EncoderConfig) -> list[nn.Parameter]:
    """Parameters of the last layers, and of what is behind them."""
    stacks = [(name, stack) for name, stack in model.named_modules() if isinstance(stack, nn.ModuleList)]
    if not stacks:
        raise ConfigError(f"encoder.tuning=last: {type(model).__name__} has no stack of layers; choose full or lora")
    # The outermost stack, and of those the deepest, is what is meant by layers.
    name, stack = min(stacks, key=lambda named: (named[0].count("."), -len(named[1])))
    if config.num_tuned_layers > len(stack):
        raise ConfigError(
            f"encoder.num_tuned_layers={config.num_tuned_layers}, but {type(model).__name__} has {len(stack)} layers; "
            f"give at most {len(stack)}, or tuning=full"
        )
    tuned = [p for layer in list(stack)[-config.num_tuned_layers :] for p in layer.parameters()]
    names = [known for known, _ in model.named_parameters()]
    last = max(index for index, known in enumerate(names) if known.startswith(f"{name}."))
    return tuned + [parameter for _, parameter in list(model.named_parameters())[last + 1 :]]


def _add_lora(model: nn.Module, rank: int) -> None:
    """Put matrices of low rank beside all linear layers; where there are none, as in ResNet, beside convolutions."""
    from peft import LoraConfig, inject_adapter_in_model

    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
    for kind in kinds:
        names = [name for name, module in model.named_modules() if isinstance(module, kind)]
        if names:
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), model)
            return
    raise ConfigError(f"encoder.tuning=lora: {type(model).__name__} has no linear layer; choose full or last")


def _leaves(outputs: list[Tensor]) -> set[int]:
    """Ids of the parameters that tensors depend on."""
    found, seen, todo = set(), set(), [output.grad_fn for output in outputs]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo.extend(earlier for earlier, _ in node.next_functions)
    return found


# Texts


class TextBatch(NamedTuple):
    """Texts as ``TextEncoder.forward`` takes them.

    Attributes:
        input_ids: [r l] int64.
        attention_mask: [r l] int64, 0 where padded.
        spans: [r e 2] int64, word pieces [start, end) whose mean is a mention; [0, 0) where padded.
    """

    input_ids: Tensor
    attention_mask: Tensor
    spans: Tensor


@dataclass(frozen=True)
class TokenRows:
    """The word pieces of many texts, one behind the other.

    Attributes:
        input_ids: [n] int32.
        offsets: [c + 1] int64: text i is input_ids[offsets[i] : offsets[i + 1]].
        spans: [m 2] int32, counted from the start of the text: the pieces whose mean is the mention.
        span_offsets: [c + 1] int64, of spans.
        pad_id: piece that fills rows up.
        num_lost: mentions of which no piece is left within ``max_length``; their span is that of the sentence vector.
    """

    input_ids: np.ndarray
    offsets: np.ndarray
    spans: np.ndarray
    span_offsets: np.ndarray
    pad_id: int
    num_lost: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def collate(self, rows: Sequence[int] | np.ndarray) -> TextBatch:
        """The texts of these numbers, in this order, filled up to the longest."""
        rows = np.asarray(rows, dtype=np.int64)
        input_ids, mask = _padded(self.input_ids, self.offsets, rows, self.pad_id)
        spans, _ = _padded(self.spans, self.span_offsets, rows, 0)
        tensors = (torch.from_numpy(array.astype(np.int64)) for array in (input_ids, mask, spans))
        return TextBatch(*tensors)


def _padded(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a ragged array as one with a mask: [n ...] -> [r l ...], [r l] bool."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    places = np.arange(lengths.max(initial=0))
    mask = places < lengths[:, None]
    padded = np.full((*mask.shape, *values.shape[1:]), fill, dtype=values.dtype)
    padded[mask] = values[(starts[:, None] + places)[mask]]
    return padded, mask


class TextReader:
    """Words to word pieces: the tokenizer of an encoder, with marks around mentions. Needs no weights."""

    def __init__(self, config: EncoderConfig) -> None:
        """Raises ConfigError: no tokenizer, marks that it does not know, or more pieces than the encoder reads."""
        self.config = config
        folder = find_encoder(config.path)
        self.tokenizer = _load(AutoTokenizer, folder, config.path, "tokenizer", use_fast=True)
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"encoder.path={config.path}: its tokenizer has no tokenizer.json; save it as a fast one, or choose "
                "another encoder"
            )
        positions = getattr(_load(AutoConfig, folder, config.path, "config"), "max_position_embeddings", None)
        longest = min(self.tokenizer.model_max_length, positions or config.max_length)
        if config.max_length > longest:
            raise ConfigError(
                f"encoder.max_length={config.max_length}: {config.path} reads at most {longest} word pieces; give that"
            )
        for name in ("opening", "closing") if config.markers else ():
            mark = getattr(config, name)
            pieces = self.tokenizer.encode(mark, add_special_tokens=False) if mark.strip() else []
            if not pieces or self.tokenizer.unk_token_id in pieces:
                raise ConfigError(
                    f"encoder.{name}={mark!r} is not in the vocabulary of {config.path}; give another mark, as @, or "
                    "set markers to false"
                )
        self.pad_id = self.tokenizer.pad_token_id or 0

    def tokenize(self, tokens: Sequence[Sequence[str]], spans: Sequence[Sequence[tuple[int, int]]]) -> TokenRows:
        """Word pieces of texts, and where their mentions are. Mentions may overlap, nest, and be the same.

        A mention is the pieces of its words, without the marks around it; marks of a mention inside it are among them.

        Args:
            tokens: words of each context.
            spans: of each context, the words [start, end) of each mention.

        Raises:
            DataError: if a span is not inside its context.
        """
        marked = [_Marked.of(*pair, number, self.config) for number, pair in enumerate(zip(tokens, spans, strict=True))]
        # Where a piece carries the space before its word (byte-level, SentencePiece), words inside a text have one.
        words = [[*text.words[:1], *(f" {word}" for word in text.words[1:])] for text in marked]
        batch: Any = self.tokenizer(words, is_split_into_words=True, verbose=False) if words else None
        rows, places = [], []
        for number, text in enumerate(marked):
            ids, place = self._row(np.asarray(batch["input_ids"][number]), batch.word_ids(number), text)
            rows.append(ids)
            places.append(place)
        flat = np.concatenate([np.zeros((0, 2), np.int32), *places])
        lost = flat[:, 0] < 0
        # The sentence vector in its place: the mean over all pieces, or the first.
        ends = [1] * len(rows) if self.config.pool == "first" else [len(row) for row in rows]
        owners = np.repeat(np.arange(len(rows)), [len(place) for place in places])
        flat[lost] = np.stack([np.zeros_like(owners), np.asarray(ends, np.int64)[owners]], axis=1)[lost]
        return TokenRows(
            input_ids=np.concatenate([np.zeros(0, np.int32), *rows]),
            offsets=_offsets(rows),
            spans=flat,
            span_offsets=_offsets(places),
            pad_id=self.pad_id,
            num_lost=int(lost.sum()),
        )

    def _row(self, ids: np.ndarray, word_ids: list[int | None], text: "_Marked") -> tuple[np.ndarray, np.ndarray]:
        """Cut one text, and find its mentions.  -> [l] int32, [e 2] int32, -1 where nothing is left of a mention."""
        inner = np.array([place for place, word in enumerate(word_ids) if word is not None], dtype=np.int64)
        words = np.array([word for word in word_ids if word is not None], dtype=np.int64)
        num_behind = len(ids) - 1 - inner[-1] if len(inner) else 0  # special pieces at the end, as [SEP]
        if len(ids) > self.config.max_length:
            end = self.config.max_length - num_behind
            ids = np.concatenate([ids[:end], ids[len(ids) - num_behind :]])
            inner, words = inner[inner < end], words[inner < end]
        first = inner[0] if len(inner) else 0
        places = first + np.searchsorted(words, text.mentions)  # [e 2]
        if self.config.mention == "start":
            starts = text.openings if self.config.markers else text.mentions[:, 0]
            places[:, 0] = first + np.searchsorted(words, starts)
            places[:, 1] = np.minimum(places[:, 0] + 1, first + len(words))
        places[places[:, 0] >= places[:, 1]] = -1
        return ids.astype(np.int32), places.astype(np.int32)


def _offsets(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)


@dataclass(frozen=True)
class _Marked:
    """A text with marks around its mentions.

    Attributes:
        words: with the marks among them.
        mentions: [e 2] words [start, end) of each mention, in ``words``.
        openings: [e] place of the opening mark of each mention in ``words``; its first word where there are no marks.
    """

    words: list[str]
    mentions: np.ndarray
    openings: np.ndarray

    @staticmethod
    def of(tokens: Sequence[str], spans: Sequence[tuple[int, int]], number: int, config: EncoderConfig) -> "_Marked":
        for start, end in spans:
            if not 0 <= start < end <= len(tokens):
                raise DataError(
                    f"context {number}: mention [{start}, {end}) is not inside its {len(tokens)} words; correct it"
                )
        starts, ends = np.array(spans, dtype=np.int64).reshape(-1, 2).T
        if not config.markers:
            return _Marked(list(tokens), np.stack([starts, ends], axis=1), starts)
        num_opening, num_closing = (np.bincount(edges, minlength=len(tokens) + 1) for edges in (starts, ends))
        # Between two words first the marks that close, then those that open.
        shifted = np.arange(len(tokens) + 1) + np.cumsum(num_opening + num_closing)
        words: list[str] = []
        for place, (closing, opening) in enumerate(zip(num_closing.tolist(), num_opening.tolist(), strict=True)):
            words += [config.closing] * closing + [config.opening] * opening + list(tokens[place : place + 1])
        # Of mentions that start together, the longest opens first.
        order = np.lexsort((-ends, starts))
        turns = np.empty_like(starts)
        turns[order] = np.arange(len(starts)) - (np.cumsum(num_opening) - num_opening)[starts[order]]
        mentions = np.stack([shifted[starts], shifted[ends - 1] + 1], axis=1)
        return _Marked(words, mentions, shifted[starts] - num_opening[starts] + turns)


class TextEncoder(_Encoder):
    """Any text encoder of transformers: a vector for each mention, and one for each text."""

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        """Load it.

        Args:
            config: which, and what of it is trained.
            seed: of what tuning=lora adds.

        Raises:
            ConfigError: if there is no such encoder, or it cannot be tuned so.
        """
        super().__init__(config, seed)
        self.reader = TextReader(config)
        self.hidden_size = int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        self._drop_unused(*self.reader.tokenize([["a", "word"]], [[(0, 1)]]).collate([0]))

    def tokenize(self, tokens: Sequence[Sequence[str]], spans: Sequence[Sequence[tuple[int, int]]]) -> TokenRows:
        """As ``TextReader.tokenize``."""
        return self.reader.tokenize(tokens, spans)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of mentions and texts; zero for a mention that is padding.

        input_ids [r l], attention_mask [r l], spans [r e 2] -> mentions [r e t], sentence [r t].
        """
        with self._grad():
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [r l t]
            places = torch.arange(hidden.shape[1], device=hidden.device)
            inside = (spans[..., :1] <= places) & (places < spans[..., 1:])  # [r e l]
            mentions = _mean_over(hidden, inside)
            if self.config.pool == "first":
                return mentions, hidden[:, 0]
            return mentions, _mean_over(hidden, rearrange(attention_mask.bool(), "r l -> r 1 l"))[:, 0]

    def save_pretrained(self, directory: Path) -> None:
        """Write it as transformers does, LoRA merged, so that ``EncoderConfig(path=directory)`` finds it."""
        self._save(directory, self.reader.tokenizer)


def _mean_over(hidden: Tensor, inside: Tensor) -> Tensor:
    """Mean over the pieces of each set, 0 for an empty one.  hidden [r l t], inside [r e l] bool -> [r e t]."""
    total = torch.einsum("rel,rlt->ret", inside.to(hidden.dtype), hidden)
    return total / reduce(inside, "r e l -> r e 1", "sum").clamp(min=1).to(hidden.dtype)


# Images


class VisionEncoder(_Encoder):
    """Any vision encoder of transformers, or the vision half of one for text and images: a vector for each image.

    It is what the model pools (CLIP: the normalised class token; ResNet: the mean over places), or else the class token
    behind the last norm (ViT, whose pooler is often untrained in what is published).

    Attributes:
        image_shape: (3, h, w) of an image as the model sees it.
    """

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        """Load it.

        Args:
            config: which, and what of it is trained; its fields about texts are not read.
            seed: of what tuning=lora adds.

        Raises:
            ConfigError: if there is no such encoder, or it cannot be tuned so.
        """
        super().__init__(config, seed)
        # torchvision's own resizing gives other numbers, and features are to be the same wherever they are made.
        self.processor = _load(AutoImageProcessor, self.folder, config.path, "image processor", backend="pil")
        blank = torch.zeros(1, *self._pixels([Image.new("RGB", (2, 2))]).shape[1:])
        self.image_shape = tuple(blank.shape[1:])
        try:
            with torch.no_grad():
                self.hidden_size = int(self.eval()(blank).shape[-1])
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(
                f"encoder.path={config.path}: {type(self.model).__name__} does not read an image of "
                f"{self.image_shape} ({reason}); give a vision encoder, as CLIP, ViT or ResNet"
            ) from None
        self._drop_unused(blank)

    def process(self, images: Sequence[Image.Image]) -> Tensor:
        """Images of any size and mode as the model sees them.  -> [k 3 h w] float32, also where k is 0."""
        return self._pixels(images) if images else torch.zeros(0, *self.image_shape)

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        plain = [_not_too_long(image.convert("RGB")) for image in images]
        pixels: Tensor = self.processor(images=plain, return_tensors="pt")["pixel_values"].float()
        return pixels

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [k 3 h w] -> [k v].

        Without an image the model sees a blank one, whose vector is dropped: under ZeRO 3 all ranks must call it.
        """
        num_images = len(pixel_values)
        seen = pixel_values if num_images else pixel_values.new_zeros(1, *pixel_values.shape[1:])
        with self._grad():
            output = self.model(pixel_values=seen.to(next(self.model.parameters()).dtype))  # bf16 under DeepSpeed
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                pooled = output.last_hidden_state
                pooled = pooled[:, 0] if pooled.ndim == 3 else reduce(pooled, "k v h w -> k v", "mean")
            flat: Tensor = rearrange(pooled, "k v ... -> k (v ...)")
            return flat[:num_images]

    def save_pretrained(self, directory: Path) -> None:
        """Write it as transformers does, LoRA merged, so that ``EncoderConfig(path=directory)`` finds it."""
        self._save(directory, self.processor)


def _not_too_long(image: Image.Image) -> Image.Image:
    """The middle of a strip: a box of 1 x 2000 pixels, its short edge drawn out to 224, would be of 448,000."""
    longest = _LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(edge, longest) for edge in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
