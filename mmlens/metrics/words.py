"""Words of a caption, as all metrics of captions here count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmlens.errors import SampleError

_CLITIC = re.compile(r"(n't|'(?:s|re|ve|ll|d|m))\b")
_WORD = re.compile(r"'(?:s|re|ve|ll|d|m)\b|\w+(?:[-.:,/']\w+)*")


def caption_words(text: str) -> list[str]:
    """The words of a caption: lower case, without punctuation.

    The official evaluation of COCO captions uses the Penn Treebank tokenizer, a Java program, and
    drops its punctuation. This is a simple stand-in that agrees with it on plain sentences: words
    with a hyphen stay one, "'s" and "n't" are words of their own. It differs in that other signs
    ($, &, #, %) and brackets vanish, abbreviations lose their last full stop, and "can't" is "ca" and
    "n't" but "cannot" stays one.

    >>> caption_words("A man's T-shirt; it doesn't fit.")
    ['a', 'man', "'s", 't-shirt', 'it', 'does', "n't", 'fit']
    """
    plain = text.lower().replace("\u2019", "'")
    return _WORD.findall(_CLITIC.sub(r" \1 ", plain))


def reference_words(references: Sequence[str], metric: str) -> list[list[str]]:
    """The words of every reference caption that has any.

    Raises:
        SampleError: none of them has a word; ``metric`` is named.
    """
    found = [words for text in references if (words := caption_words(text))]
    if not found:
        raise SampleError(
            f"The metric {metric!r} needs a reference with at least one word; given were "
            f"{', '.join(map(repr, references)) or 'none'}."
        )
    return found
