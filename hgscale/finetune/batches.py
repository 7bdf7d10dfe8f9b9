"""The contexts of a split as a model takes them: hypergraphs cut out of flat arrays, with no loop over rows.

A context is one row where its pairs are scored together, and a row for each pair where they are scored one by one.
Features of frozen encoders are looked up, texts and images of others are given as word pieces and pixels.

Axes: c contexts, r rows, e entities and o objects of a row (padded), p pairs, k images and objects that are there,
t v widths of the features of text and vision, l word pieces, z width of a prior.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hgscale.finetune.data.contexts import Context, Split
from hgscale.finetune.features import cut_box, read_image
from hgscale.finetune.rows import image_items, rows_of, text_items
from hgscale.finetune.store import FeatureStore, ImageItem
from hgscale.models.config import VmhanConfig
from hgscale.models.encoders import TextReader, VisionEncoder
from hgscale.models.multimodal import ContextBatch

OPEN_IMAGES = 64  # decoded images that a worker keeps


class Contexts:
    """A split, ready to be cut into batches.

    Attributes:
        num_pairs: [c] int64, of each context.
        num_rows: [c] int64.
        labels: [p] int64 of all pairs, in the order of contexts.
        lengths: [c] int64, words of each context in all its rows.
    """

    def __init__(
        self,
        split: Split,
        model: VmhanConfig,
        reader: TextReader | None,
        text_store: FeatureStore | None,
        vision: VisionEncoder | None,
        vision_store: FeatureStore | None,
        prior: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        """Prepare a split.

        Args:
            split: the contexts.
            model: how they become hypergraphs.
            reader: makes word pieces for a text encoder that is trained; or
            text_store: features of one that is frozen.
            vision: makes pixels for a vision encoder that is trained; or
            vision_store: features of one that is frozen. Neither: text only.
            prior: of a name, [z]; None: nothing is known.

        Raises:
            DataError: a feature is not in its store, or an image is broken.
        """
        sees = vision is not None or vision_store is not None
        rows = [list(rows_of(context, model, sees)) for context in split]
        self.num_rows = np.array([len(some) for some in rows])
        self.num_pairs = np.array([len(context.pairs) for context in split])
        self._first_row = _offsets(self.num_rows)
        self.rows = [row for some in rows for row in some]
        self._num_entities = np.array([len(row.entities) for row in self.rows])
        self._first_entity = _offsets(self._num_entities)
        self._num_objects = np.array([len(row.objects) for row in self.rows])
        self._pairs = np.array([(p.first, p.second, p.label) for row in self.rows for p in row.pairs], dtype=np.int64)
        self._first_pair = _offsets([len(row.pairs) for row in self.rows])
        self.labels = self._pairs[:, 2]
        spans = [[(entity.start, entity.end) for entity in row.entities] for row in self.rows]
        self._pieces = None if reader is None else reader.tokenize([row.tokens for row in self.rows], spans)
        self.lengths = np.array([sum(len(row.tokens) for row in some) for some in rows])
        self._said = None if text_store is None else text_store.read([k for i in text_items(self.rows) for k in i.keys])
        self._vision, self._shown = vision, None
        self._items, self._places = _distinct(self.rows, model, sees)
        if vision_store is not None:
            self._shown = vision_store.read([item.keys[0] for item in self._items])
        names = [entity.name for row in self.rows for entity in row.entities]
        self._prior = None if prior is None else np.stack([prior(name) for name in names])
        self._open = lru_cache(OPEN_IMAGES)(read_image)

    def batch(self, contexts: np.ndarray, pair_weight: float, row_weight: float, kl_scale: float) -> ContextBatch:
        """The rows of some contexts, by their numbers, as tensors."""
        rows = _ranges(self._first_row[contexts], self.num_rows[contexts])
        num_entities, num_objects = self._num_entities[rows], self._num_objects[rows]
        e, o = int(num_entities.max()), int(num_objects.max())
        entity_mask = np.arange(e) < num_entities[:, None]
        mentions, sentence = self._text_features(rows, entity_mask)
        places = self._places[rows][:, : 1 + o]
        row, slot = np.nonzero(places >= 0)
        pairs, labels = self._pairs_of(rows, num_entities, e)
        return ContextBatch(
            text=None if self._pieces is None else self._pieces.collate(rows),
            mentions=mentions,
            sentence=sentence,
            visual=self._visual(places[row, slot]),
            slots=torch.from_numpy(np.stack([row, slot], axis=1)),
            entity_mask=torch.from_numpy(entity_mask),
            image_mask=torch.from_numpy(places[:, 0] >= 0),
            object_mask=torch.from_numpy(np.arange(o) < num_objects[:, None]),
            prior=self._prior_of(rows, entity_mask),
            pairs=torch.from_numpy(pairs),
            labels=torch.from_numpy(labels),
            pair_weight=pair_weight,
            row_weight=row_weight,
            kl_scale=kl_scale,
        )

    def _pairs_of(self, rows: np.ndarray, num_entities: np.ndarray, e: int) -> tuple[np.ndarray, np.ndarray]:
        """[p 3] row, first, second, in the numbering of a batch of e entities, and [p] labels."""
        counts = self._first_pair[rows + 1] - self._first_pair[rows]
        found = self._pairs[_ranges(self._first_pair[rows], counts)]
        row = np.repeat(np.arange(len(rows)), counts)
        shift = (e - num_entities)[row, None]
        nodes = found[:, :2] + np.where(found[:, :2] >= num_entities[row, None], shift, 0)
        return np.column_stack([row, nodes]), found[:, 2]

    def _text_features(self, rows: np.ndarray, entity_mask: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """[r e t] and [r t], which are kept row by row, the sentence before its mentions."""
        if self._said is None:
            return None, None
        first = self._first_entity[rows] + rows
        mentions = np.zeros((*entity_mask.shape, self._said.shape[1]), dtype=np.float32)
        row, place = np.nonzero(entity_mask)
        mentions[row, place] = self._said[first[row] + 1 + place]
        return torch.from_numpy(mentions), torch.from_numpy(self._said[first])

    def _visual(self, items: np.ndarray) -> Tensor | None:
        if self._shown is not None:
            return torch.from_numpy(self._shown[items])
        if self._vision is not None:
            return self._vision.process([self._picture(self._items[number]) for number in items])
        return None

    def _picture(self, item: ImageItem) -> Any:
        image = self._open(item.path)
        return image if item.box is None else cut_box(image, item.box, item.path)

    def _prior_of(self, rows: np.ndarray, entity_mask: np.ndarray) -> Tensor | None:
        if self._prior is None:
            return None
        prior = np.zeros((*entity_mask.shape, self._prior.shape[1]), dtype=np.float32)
        row, place = np.nonzero(entity_mask)
        prior[row, place] = self._prior[self._first_entity[rows][row] + place]
        return torch.from_numpy(prior)


def _distinct(rows: Sequence[Context], model: VmhanConfig, sees: bool) -> tuple[list[ImageItem], np.ndarray]:
    """What is to be looked at, each once; and [r 1 + o] where the image and the objects of a row are in it, or -1."""
    most = max(len(row.objects) for row in rows)
    places = np.full((len(rows), 1 + most), -1, dtype=np.int64)
    number: dict[ImageItem, int] = {}
    for r, row in enumerate(rows if sees else ()):
        for slot, item in enumerate(image_items(row, model)):
            if item is not None:
                places[r, slot] = number.setdefault(item, len(number))
    return list(number), places


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers starts[i] to starts[i] + counts[i] - 1, one range behind the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
