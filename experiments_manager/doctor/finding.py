"""What a check found."""

from __future__ import annotations

import dataclasses
import enum


class FindingState(str, enum.Enum):
    """How a finding counts: `problem` is something that is needed and broken, `note` something that can be missed."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes:
        name: What was looked at, e.g. `TensorFlow`.
        state: How it counts.
        text: What was found.
        remedy: What to do about it; empty where there is nothing to do.
    """

    name: str
    state: FindingState
    text: str
    remedy: str = ""


def ok(name: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name, FindingState.OK, text)


def note(name: str, text: str, remedy: str = "") -> Finding:
    """Return a finding about something that runs can do without."""
    return Finding(name, FindingState.NOTE, text, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """Return a finding about something that runs need."""
    return Finding(name, FindingState.PROBLEM, text, remedy)
