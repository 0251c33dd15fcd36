"""The lens over the medium that its tokens are of: which figure, and what it needs besides the lens."""

from __future__ import annotations

from typing import Any

from PIL import Image

from mmlens.adapter import KINDS
from mmlens.data.media.pictures import open_picture
from mmlens.data.media.videos import open_video
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.lens.figures.picture import lens_on_picture
from mmlens.lens.figures.sound import lens_on_sound
from mmlens.lens.figures.video import lens_on_video
from mmlens.lens.readings import Readings
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import model_spectrogram, places_of


def lens_on_medium(
    result: Readings,
    model: HookedMLLM,
    row: int,
    kind: str | None,
    medium: int,
    **options: Any,
) -> Any:
    """See :meth:`mmlens.lens.result.LensResult.plot_picture`."""
    places = places_of(model, result.batch, row)
    assert result.batch.samples is not None  # places_of has asked for them
    sample = result.batch.samples[row]
    kind = kind or _first_kind(sample)
    if kind not in KINDS:
        raise SampleError(f"There is no kind of media {kind!r}; there are {', '.join(KINDS)}.")
    media = getattr(sample, f"{kind}s")
    if not 0 <= medium < len(media):
        noun = {"image": "pictures", "video": "videos", "audio": "sounds"}[kind]
        raise SampleError(
            f"Sample {sample.id!r} has {len(media)} {noun}; number {medium} was asked for."
        )
    given = media[medium]
    if kind == "image":
        picture = open_picture(given)
        return lens_on_picture(result, row, places, picture, medium=medium, **options)
    if kind == "video":
        video = open_video(given)
        frames = [Image.fromarray(frame) for frame in video.frames]
        return lens_on_video(result, row, places, frames, fps=video.fps, medium=medium, **options)
    sound = model_spectrogram(model, given)
    return lens_on_sound(result, row, places, sound, medium=medium, **options)


def _first_kind(sample: Sample) -> str:
    for kind in KINDS:
        if getattr(sample, f"{kind}s"):
            return kind
    raise SampleError(
        f"Sample {sample.id!r} has no picture, video or sound that the lens could be drawn over; use "
        "plot()."
    )
