"""Hashes of Flow Keys, many at a time, and the comparison of keys that have one hash."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from netobs.flow.records import CHUNK_ROWS, KEY, Records

if TYPE_CHECKING:
    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]
else:
    Hashes = np.ndarray

FIRST_HASH = 2
"""The least hash of a Flow Key; those who use the hashes have the values below for marks."""
WORD = np.dtype("<u8")
KEY_WORDS = KEY.itemsize // WORD.itemsize
_WORD_MASK = (1 << 64) - 1


def hash_keys(records: Records, seed: int) -> Hashes:
    """64-bit hashes (uint64, shape ``(n,)``, at least ``FIRST_HASH``) of the Flow Keys of contiguous ``records``.

    Pair-multiply-shift (Thorup, "High Speed Hashing for Integers and Strings", 3.2) over the words of the key,
    then a bijective finaliser: two keys collide with a probability of at most 2**-32 whatever the keys are, as long
    as ``seed`` is not known. A plain chain of multiply and xor has colliding keys that no seed parts.
    """
    return hash_words(key_words(records), seed)


def hash_words(words: Hashes, seed: int) -> Hashes:
    """As ``hash_keys``, of keys of any number of words: shape ``(n, number)``."""
    hashes = np.empty(len(words), np.uint64)
    constants = _constants(seed, words.shape[1])
    for begin in range(0, len(words), CHUNK_ROWS):
        chunk = slice(begin, begin + CHUNK_ROWS)
        _hash_words(words[chunk].T.copy(), constants, hashes[chunk])
    return hashes


def _hash_words(columns: Hashes, constants: Hashes, hashes: Hashes) -> None:
    """Hash ``columns`` (uint64, shape ``(k, n)``, overwritten) into ``hashes``; ``constants``: shape ``(2 * k, 1)``."""
    upper = columns >> np.uint64(32)
    columns &= np.uint64(0xFFFFFFFF)
    upper += constants[: len(columns)]
    columns += constants[len(columns) :]
    columns *= upper
    np.add.reduce(columns, axis=0, out=hashes)
    # The good bits of the sum are its upper ones: the finaliser of SplitMix64 brings them to all places.
    for shift, factor in ((32, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    np.maximum(hashes, np.uint64(FIRST_HASH), out=hashes)


@lru_cache(maxsize=4)
def _constants(seed: int, words: int) -> Hashes:
    """Two secret words for each of the ``words`` of the key, by SplitMix64 from ``seed``; shape ``(2 * words, 1)``."""
    constants = np.empty((2 * words, 1), np.uint64)
    for index in range(len(constants)):
        mixed = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _WORD_MASK
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _WORD_MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _WORD_MASK
        constants[index] = mixed ^ mixed >> 31
    return constants


def same_keys(left: Records, right: Records) -> npt.NDArray[np.bool_]:
    """Whether row i of ``left`` and row i of ``right`` have the same Flow Key; both contiguous and equally long."""
    left_words, right_words = key_words(left), key_words(right)
    difference = left_words[:, 0] ^ right_words[:, 0]
    for word in range(1, KEY_WORDS):
        difference |= left_words[:, word] ^ right_words[:, word]
    same: npt.NDArray[np.bool_] = difference == 0
    return same


def key_words(records: Records) -> Hashes:
    """The Flow Keys of contiguous ``records`` as 64-bit words: shape ``(n, KEY_WORDS)``, without a copy."""
    return records.view(WORD).reshape(len(records), records.dtype.itemsize // WORD.itemsize)[:, :KEY_WORDS]
