"""Images and their objects: where they are, whether they can be read, and the lists of boxes or crops beside them."""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgscale.errors import ConfigError, DataError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.text import Draft

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "dev"), "test": ("test",)}
"""Words by which published files and folders name a split."""

_DECODED = 64  # pixels on a side to which a JPEG is decoded to see that it is whole: an eighth of the work
_THREADS = 8
_BEYOND = 1.0  # pixels that a box may stand over the edge, as detectors round; it is cut back
_BEYOND_FRAC = 0.01  # the same in shares of an image


@dataclass(frozen=True)
class Source:
    """Where the files of a config are: those it names, or those of planted data."""

    root: Path
    images: Path | None
    boxes: Path | None


@dataclass(frozen=True)
class _Look:
    """What an image file is: a complaint, or its size and the hash of its bytes."""

    complaint: str | None
    size: tuple[float, float] = (0.0, 0.0)
    sha256: str = ""


class Pictures:
    """Images and objects of the contexts of one config."""

    def __init__(self, config: RelationDataConfig, source: Source, drafts: Mapping[str, list[Draft]]) -> None:
        """Read the lists of objects; ``drafts`` are all there are, so that lists of other data are told by them.

        Raises:
            ConfigError: if a folder or file is not there.
            DataError: naming the list or the key that is wrong.
        """
        self._config = config
        self._source = source
        self._lists = {split: _Lists(source.boxes, split, drafts[split]) for split in drafts}
        if source.images is not None and not source.images.is_dir():
            raise ConfigError(f"data.images={source.images}: is no folder; null reads the text only")
        self._looks: dict[Path, _Look] = {}

    def look(self, drafts: Iterable[Draft], split: str) -> None:
        """Look at every image and crop of some contexts once: is it whole, how large, what is in it."""
        wanted = list(dict.fromkeys(path for draft in drafts for path in self._files(draft, split)))
        with ThreadPoolExecutor(_THREADS) as pool:  # decoding holds no lock
            self._looks |= dict(zip(wanted, pool.map(_looked, wanted), strict=True))

    def image(self, draft: Draft, split: str) -> tuple[str, tuple[float, float]] | None:
        """Absolute path and size of a context's image; None where there is none or it is marked absent."""
        path = self._path(draft, split)
        if path is None or not self._readable(path, draft):
            return None
        return str(path.absolute()), self._looks[path].size

    def objects(self, draft: Draft, split: str) -> list[dict[str, Any]]:
        """The first objects of a context: box, label, file.

        Raises:
            DataError: naming a box outside its image, or without area, or a crop that is broken.
        """
        found = self.image(draft, split)
        if draft.objects:
            return _shares(draft, None if found is None else found[1])
        if self._source.images is not None and found is None:
            size: tuple[float, float] | None = (0.0, 0.0)  # absent: only crops that are files of their own remain
        else:
            size = None if found is None else found[1]
        objects = []
        for entry in self._lists[split].of(draft):
            if entry.file is None:
                assert entry.box is not None
                if size == (0.0, 0.0):
                    continue
                objects.append({"box": _inside(entry.box, size, entry.where), "label": entry.label, "file": None})
                continue
            if self._source.images is None:
                objects.append({"box": None, "label": entry.label, "file": None})
                continue
            path = self._crop(entry.file, split)
            if self._readable(path, draft):
                objects.append({"box": None, "label": entry.label, "file": str(path.absolute())})
        return objects[: self._config.max_objects]

    def num_crops(self, split: str, instance: int) -> int | None:
        """Length of the list of an instance; None where lists belong to images."""
        return self._lists[split].num_crops(instance)

    def num_absent(self, drafts: Iterable[Draft], split: str) -> int:
        """Contexts whose image is missing or broken."""
        return sum(self._source.images is not None and self.image(draft, split) is None for draft in drafts)

    def digest(self) -> str:
        """Of the bytes of all images and crops: what they show, wherever they are."""
        return hashlib.sha256("".join(sorted(look.sha256 for look in self._looks.values())).encode()).hexdigest()

    def _path(self, draft: Draft, split: str) -> Path | None:
        images = self._source.images
        if images is None:
            return None
        folders = [images / name for name in SPLIT_NAMES[split] if (images / name).is_dir()]
        return (folders[0] if folders else images) / draft.image

    def _files(self, draft: Draft, split: str) -> list[Path]:
        """Image and crops of a context."""
        path = self._path(draft, split)
        if path is None:
            return []
        return [path, *(self._crop(one.file, split) for one in self._lists[split].of(draft) if one.file is not None)]

    def _crop(self, name: str, split: str) -> Path:
        """A crop: beside its list, or where the published layout has it."""
        assert self._source.boxes is not None
        lists = self._source.boxes if self._source.boxes.is_dir() else self._source.boxes.parent
        published = [lists.parent / "img_vg" / word / "crops" for word in SPLIT_NAMES[split]]
        for folder in (lists, lists / "crops", *published):
            if (folder / name).is_file():
                return folder / name
        return published[0] / name

    def _readable(self, path: Path, draft: Draft) -> bool:
        complaint = self._looks[path].complaint
        if complaint is not None and self._config.broken_images == "refuse":
            raise DataError(
                f"{path}: {complaint}; {draft.where} wants it; fetch it again, or set data.broken_images=absent to go "
                "without it"
            )
        return complaint is None


def _looked(path: Path) -> _Look:
    from PIL import Image

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Look("is missing")
    except OSError as error:
        return _Look(f"cannot be read: {error.strerror}")
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = (float(image.width), float(image.height))
            image.draft("RGB", (_DECODED, _DECODED))
            image.load()
    # What PIL raises at broken bytes differs by format, and is not documented as a closed set.
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, Image.DecompressionBombError) as error:
        return _Look(f"is no whole image ({str(error)[:60]})")
    return _Look(None, size, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class _Entry:
    """One object of a list: a box or the name of a crop's file."""

    where: str
    box: tuple[float, ...] | None
    label: str | None
    file: str | None


class _Lists:
    """Objects of one split: by image, or by instance as in the crop lists shipped with MNRE.

    Source: the published readers of HVPNeT and MKGformer (zjunlp): ``mre_{train,dev,test}_dict.pth`` holds number of
    instance -> names of crops under ``img_vg/{train,val,test}/crops``; ``{train,val,test}_img2crop.pth`` holds name of
    image without its ending -> names of crops.
    """

    def __init__(self, place: Path | None, split: str, drafts: list[Draft]) -> None:
        self._by_image: dict[str, list[_Entry]] = {}
        self._by_instance: dict[int, list[_Entry]] = {}
        if place is None:
            return
        path = _list_file(place, split)
        instances = [link.instance for draft in drafts for link in draft.pairs.values()]
        images = {name for draft in drafts for name in (draft.image, Path(draft.image).stem)}
        for key, value in _load(path).items():
            entries = [_entry(one, f"{path}: {key!r}[{at}]") for at, one in enumerate(_listed(value, path, key))]
            if isinstance(key, int) or key.isdigit():
                self._by_instance[int(key)] = entries
            else:
                self._by_image[key] = entries
        if self._by_instance and place.is_file():
            raise ConfigError(
                f"data.boxes={path}: its keys number instances of one split; name the folder with one file for each"
            )
        if self._by_instance and max(self._by_instance) > max(instances):
            raise DataError(
                f"{path}: has instance {max(self._by_instance)}, and the last of {split} is {max(instances)}; is it "
                "the file of another split?"
            )
        if self._by_image and not images & self._by_image.keys():
            raise DataError(
                f"{path}: none of its {len(self._by_image)} keys, as {next(iter(self._by_image))!r}, is an image of "
                f"{split}, as {drafts[0].image!r}; wanted names of images"
            )

    def of(self, draft: Draft) -> list[_Entry]:
        """Objects of a context, each once: those of its image, then those of its instances in their order."""
        found = list(self._by_image.get(draft.image, self._by_image.get(Path(draft.image).stem, [])))
        for link in draft.pairs.values():
            found += self._by_instance.get(link.instance, [])
        return list({(one.box, one.label, one.file): one for one in found}.values())

    def num_crops(self, instance: int) -> int | None:
        return len(self._by_instance.get(instance, [])) if self._by_instance else None


def _list_file(place: Path, split: str) -> Path:
    if place.is_file():
        return place
    if not place.is_dir():
        raise ConfigError(f"data.boxes={place}: there is no such file or folder; null goes without objects")
    files = sorted(path for path in place.iterdir() if path.suffix in (".json", ".pth"))
    found = [path for path in files if any(word in path.stem.split("_") for word in SPLIT_NAMES[split])]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigError(
            f"data.boxes={place}: files of {split}, in .json or .pth with {' or '.join(SPLIT_NAMES[split])} in their "
            f"names: {names}; wanted one"
        )
    return found[0]


def load_pth(path: Path) -> Any:
    """What a .pth file holds, of plain values and tensors only: nothing in it is run.

    Raises:
        DataError: if it cannot be read, or holds more than that.
    """
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; set data.root or data.boxes to where it is") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:80]
        raise DataError(f"{path}: cannot be read as plain values ({reason}); fetch it again, or write JSON") from None


def _load(path: Path) -> dict[Any, Any]:
    if path.suffix == ".pth":
        values = load_pth(path)
    else:
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: is no JSON ({error}); wanted image -> list of objects") from None
    if not isinstance(values, dict) or not values or not all(isinstance(key, str | int) for key in values):
        raise DataError(f"{path}: wanted a dict of image, or number of instance, -> list of objects")
    return values


def _listed(value: Any, path: Path, key: str | int) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise DataError(f"{path}: {key!r} has {value!r:.60}; wanted a list of objects")
    return list(value)


def _entry(value: Any, where: str) -> _Entry:
    """An object: four numbers, or {box or file, label}, or the name of a file."""
    label = None
    if isinstance(value, dict):
        label = value.get("label")
        value = value.get("box", value.get("file"))
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str) and value:
        return _Entry(where, None, label, value)
    good = isinstance(value, list | tuple) and len(value) == 4 and all(isinstance(one, int | float) for one in value)
    if not good or not all(map(math.isfinite, value)) or not isinstance(label, str | None):
        raise DataError(f"{where}: is {value!r:.60}; wanted [x0, y0, x1, y1], {{box, label}} or the name of a crop")
    return _Entry(where, tuple(map(float, value)), label, None)


def _inside(
    box: tuple[float, ...], size: tuple[float, float] | None, where: str, beyond: float = _BEYOND
) -> list[float]:
    """A box, cut back to its image where rounding took it over the edge."""
    width, height = size or (math.inf, math.inf)
    x0, y0, x1, y1 = box
    if min(x0, y0) < -beyond or x1 > width + beyond or y1 > height + beyond:
        image = f"the image is {width:g} x {height:g}" if size else "it begins before 0"
        raise DataError(f"{where}: box {list(box)} is outside its image: {image}; wanted x0, y0, x1, y1 inside")
    cut = [max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)]
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise DataError(f"{where}: box {list(box)} has no area; wanted x0 < x1 and y0 < y1; is it x, y, width, height?")
    return cut


def _shares(draft: Draft, size: tuple[float, float] | None) -> list[dict[str, Any]]:
    """Objects of more, whose boxes are shares of the image (centre, width, height), in the units of its size."""
    width, height = size or (1.0, 1.0)
    objects = []
    for name, (box, label) in draft.objects.items():
        x, y, w, h = box
        where = f"{draft.where}: object {name!r} of {draft.image}"
        x0, y0, x1, y1 = _inside((x - w / 2, y - h / 2, x + w / 2, y + h / 2), (1.0, 1.0), where, _BEYOND_FRAC)
        objects.append({"box": [x0 * width, y0 * height, x1 * width, y1 * height], "label": label, "file": None})
    return objects
