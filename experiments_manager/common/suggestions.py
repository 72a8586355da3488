"""Which known name somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "", shown: str = "`{}`") -> str:
    """Return the question whether the nearest known name was meant.

    Args:
        word: What was written.
        known: The names that would have been right.
        otherwise: What to say where none of them is near.
        shown: How the name is written in the question.
    """
    near = nearest_name(word, known)
    return f"Did you mean {shown.replace('{}', near)}?" if near is not None else otherwise


def nearest_name(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that `word` most probably stands for, or `None` where none is near.

    Used for hints, so it is generous: about one letter in three may be wrong, but not all.
    """
    letters = len(_plain(word))
    limit = min(max(1, letters // 3), letters - 1)
    return _closest(word, known, limit)


def probable_typo(word: str, known: Iterable[str]) -> str | None:
    """Return the known name of which `word` is almost certainly a slip of the fingers, or `None`.

    Used to refuse names, so it is strict: the same letters with other capitals or underscores, one wrong letter, or two
    in a name of ten letters or more.
    """
    limit = 2 if len(_plain(word)) >= 10 else 1 if len(_plain(word)) >= 4 else 0
    return _closest(word, known, limit)


def _closest(word: str, known: Iterable[str], limit: int) -> str | None:
    plain = _plain(word)
    others = [name for name in known if name != word and abs(len(_plain(name)) - len(plain)) <= limit]
    ranked = sorted((edit_distance(plain, _plain(name)), name) for name in others)
    return ranked[0][1] if ranked and ranked[0][0] <= limit else None


def _plain(word: str) -> str:
    return word.replace("_", "").lower()


def edit_distance(first: str, second: str) -> int:
    """Return number of inserted, deleted, replaced or swapped neighbouring letters between two words.

    This is the optimal string alignment distance, the restricted form of Damerau's and Levenshtein's.
    """
    before_last: list[int] = []
    last = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            cost = min(last[column] + 1, current[column - 1] + 1, last[column - 1] + (letter != other))
            swapped = row > 1 and column > 1 and letter == second[column - 2] and first[row - 2] == other
            current.append(min(cost, before_last[column - 2] + 1) if swapped else cost)
        before_last, last = last, current
    return last[-1]
