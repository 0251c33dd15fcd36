"""Where the positions of a batch lie in its pictures, videos and sounds, as the model takes them.

For the language module a position is a token of the prompt, for a tower one of its activations.
"""

from __future__ import annotations

from mmlens.data.media.sounds import Audio, open_audio
from mmlens.data.media.spectrogram import MelBank, Spectrogram, spectrogram
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.tokens.places import Places


def places_of(model: HookedMLLM, batch: Batch, row: int, module: str = LANGUAGE) -> Places:
    """Where one row's positions of a module lie in the row's media.

    Args:
        model: the model.
        batch: made by ``model.prepare`` (the sizes of the media are read from its samples).
        row: a row of the batch.
        module: ``language``: a place for each position of the batch, padding included, so that
            ``places.boxes[pos]`` (of a sound ``places.seconds[pos]``) belongs to
            ``batch.input_ids[row, pos]``. Another module: one for each real position of the row in
            that module's activations; the passes of a tower that runs more than once follow one
            another.

    Raises:
        SampleError: a batch without samples, no such row, or a module without neurons.
        UnsupportedModelError: the model's adapter knows no places.
    """
    if not 0 <= row < len(batch):
        raise SampleError(f"There is no row {row} in a batch of {len(batch)}.")
    found = batch_places(model, batch, module)
    if module == LANGUAGE:
        (one,) = found
        length = batch.shape[1]
        return one[slice(row * length, (row + 1) * length)]
    rows = model.tower_rows(batch, module)
    return Places.joined([p[r == row] for p, r in zip(found, rows, strict=True)])


def batch_places(model: HookedMLLM, batch: Batch, module: str = LANGUAGE) -> list[Places]:
    """Where all positions of a module lie, for each of its passes, in the flat order of activations.

    ``language`` has one pass, over [batch, pos]; errors as :func:`places_of`.
    """
    model.module(module)
    if batch.samples is None:
        raise SampleError(
            "Places need the sizes of the media, which are read from samples; make the batch with "
            "model.prepare(samples)."
        )
    sizes = [model.preparer.sizes(one) for one in batch.samples]
    found = model.adapter.places(module, model.processor, batch.inputs, sizes)
    if found is None:
        raise UnsupportedModelError(
            f"{type(model.adapter).__name__} does not know where positions of {module!r} lie in its "
            "media; define its method places."
        )
    if module != LANGUAGE:
        return found if any(model.media_rows(batch).values()) else []
    places = Places.nowhere(batch.input_ids.numel())
    features = model.adapter.feature_counts(batch.inputs)
    for group, one in zip(features, found, strict=True):
        here = batch.groups.mask(group).flatten().nonzero()[:, 0].cpu()
        if len(one) != len(here):
            raise UnsupportedModelError(
                f"The adapter reported {len(one)} places for {len(here)} {group} tokens; its method "
                "places does not fit these inputs."
            )
        columns = vars(places).items()
        places = Places(**{k: old.index_copy(0, here, getattr(one, k)) for k, old in columns})
    return [places]


def model_spectrogram(model: HookedMLLM, audio: Audio) -> Spectrogram:
    """A sound's spectrogram, as the model's own feature extractor takes it where that is known.

    Raises:
        MediaError: the sound is not readable.
    """
    bank = MelBank.of(getattr(model.processor, "feature_extractor", None))
    if bank.rate != (rate := model.adapter.sampling_rate(model.processor)):
        bank = MelBank.plain(rate)
    return spectrogram(open_audio(audio, bank.rate), bank)
