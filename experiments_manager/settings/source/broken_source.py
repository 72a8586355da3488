"""What can still be read of a module that Python cannot read as a whole."""

from __future__ import annotations

import dataclasses
import re
import warnings

_MOST_STATEMENTS = 20
"""Statements that are taken out of a module at most, before none of it counts as readable."""

_GOES_ON = re.compile(r"[\s#)\]}]|$|(else|elif|except|finally)\b")
"""Begins a line that does not begin a statement of the top level."""

_BINDS = re.compile(r"^(?:(?:async\s+)?def\s+|class\s+)?(\w+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class PartialSource:
    """A module without the statements that Python cannot read.

    Attributes:
        text: The source, these statements replaced by empty lines.
        lost: Their source.
        error: What Python says of the first one, or `None` where it can read all.
        nothing: Whether no part of the module can be read.
    """

    text: str
    lost: str = ""
    error: SyntaxError | None = None
    nothing: bool = False

    @property
    def lost_words(self) -> frozenset[str]:
        """All words in the statements that were lost, any of which may be a name that they bind or use."""
        return frozenset(re.findall(r"\w+", self.lost))

    @property
    def lost_names(self) -> frozenset[str]:
        """The names that these statements bind, as far as their first words tell."""
        return frozenset(_BINDS.findall(self.lost))


def parse_valid_statements(text: str, file: str) -> PartialSource:
    """Take statements of the top level out of a module until Python can read the rest.

    Args:
        text: The source.
        file: Its path, for messages.

    Raises:
        ValueError: The text holds null bytes.
    """
    first = error = _syntax_error(text, file)
    lines, lost = [line + "\n" for line in text.split("\n")], []  # `splitlines` would part them at form feeds, too
    for _ in range(_MOST_STATEMENTS):
        if error is not None and not error.lineno:  # it is no text at all
            break
        if error is None:
            return PartialSource("".join(lines) if first else text, "".join(lost), first)
        begin, end = _statement_at(lines, error)
        lost += lines[begin:end]
        lines[begin:end] = ["\n"] * (end - begin)
        error = _syntax_error("".join(lines), file)
    return PartialSource("", text, first, nothing=True)


def _syntax_error(text: str, file: str) -> SyntaxError | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python says it again when the module is read to be executed
        try:
            compile(text, file, "exec", dont_inherit=True)
        except SyntaxError as error:
            return error
    return None


def _statement_at(lines: list[str], error: SyntaxError) -> tuple[int, int]:
    """Return the lines of the statement of the top level that an error is in, as a half-open range."""
    begins = [number for number, line in enumerate(lines) if not _GOES_ON.match(line)]
    at = min(error.lineno or 1, len(lines)) - 1
    block = re.search(r"expected an indented block after .* on line (\d+)", error.msg or "")
    at = int(block.group(1)) - 1 if block else at
    begin = max((number for number in begins if number <= at), default=0)
    end = min((number for number in begins if number > at), default=len(lines))
    while begin and lines[begin - 1].startswith("@"):
        begin -= 1
    return begin, end
