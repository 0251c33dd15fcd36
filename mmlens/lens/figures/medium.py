"""The lens over the medium that its tokens are of: which figure, and what it needs besides the lens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.adapter import KINDS
from mmlens.data.media.decoding import Audio, open_audio, open_picture, open_video
from mmlens.data.media.spectrogram import MelBank, Spectrogram, spectrogram
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.lens.figures.picture import lens_on_picture
from mmlens.lens.figures.sound import lens_on_sound
from mmlens.lens.figures.video import lens_on_video
from mmlens.model.places import places_of

if TYPE_CHECKING:
    from mmlens.lens.logit_lens import LensResult
    from mmlens.model.hooked_mllm import HookedMLLM


def lens_on_medium(
    result: LensResult,
    model: HookedMLLM,
    row: int,
    kind: str | None,
    medium: int,
    **options: Any,
) -> Any:
    """See :meth:`mmlens.lens.logit_lens.LensResult.plot_picture`."""
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
    heard = model_spectrogram(model, given)
    return lens_on_sound(result, row, places, heard, medium=medium, **options)


def model_spectrogram(model: HookedMLLM, audio: Audio) -> Spectrogram:
    """A sound's spectrogram, as the model's own feature extractor takes it where that tells how.

    Raises:
        MediaError: the sound is not readable.
    """
    bank = MelBank.of(getattr(model.processor, "feature_extractor", None))
    if bank.rate != (rate := model.adapter.sampling_rate(model.processor)):
        bank = MelBank.plain(rate)
    return spectrogram(open_audio(audio, bank.rate), bank)


def _first_kind(sample: Sample) -> str:
    for kind in KINDS:
        if getattr(sample, f"{kind}s"):
            return kind
    raise SampleError(
        f"Sample {sample.id!r} has no picture, video or sound that the lens could be drawn over; use "
        "plot()."
    )
