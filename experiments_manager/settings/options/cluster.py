"""What a job asks of a cluster: the keys of the setting `cluster`, of the site's file and of `--cluster`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pydantic

from experiments_manager.settings.options.options import Options, option
from experiments_manager.settings.types import Count, PositiveCount

_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d(:\d\d)?)?")
_MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)
_GPUS = re.compile(r"([\w.-]+:)?\d+(,[\w.-]+:\d+)*")
_SHELL_BREAKERS = re.compile(r"[\n\r\0]")


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _line(value: str) -> str:
    if not value or _SHELL_BREAKERS.search(value):
        raise ValueError("not one line")
    return value


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError("no time")
    return value


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise ValueError("no size")
    return value


def _gpus(value: str) -> str:
    if not _GPUS.fullmatch(value):
        raise ValueError("no number of GPUs")
    return value


def _as_texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


def _flag(value: str) -> str:
    if not value.startswith("-"):
        raise ValueError("no option")
    return value


Line = Annotated[str, pydantic.AfterValidator(_line)]
Lines = Annotated[list[Line], pydantic.BeforeValidator(_as_texts)]
Number = Annotated[Line, pydantic.BeforeValidator(_as_text)]
_ONE, _MANY = "a text of one line", "texts of one line"


class ClusterOptions(Options):
    """What a job may ask for. The rows read: name, type, what it may be in words."""

    partition: Line | None = option(None, _ONE)
    time: Annotated[Number, pydantic.AfterValidator(_time)] | None = option(None, "minutes, HH:MM:SS or D-HH:MM:SS")
    gpus: Annotated[Number, pydantic.AfterValidator(_gpus)] | None = option(None, "a number such as 2, or a100:2")
    nodes: PositiveCount | None = option(None, "an integer of at least 1")
    cpus: PositiveCount | None = option(None, "an integer of at least 1")
    mem: Annotated[Number, pydantic.AfterValidator(_memory)] | None = option(None, "a size such as 16G")
    account: Line | None = option(None, _ONE)
    constraint: Line | None = option(None, _ONE)
    image: Line | None = option(None, _ONE)
    bind: Lines | None = option(None, _MANY)
    setup: Lines | None = option(None, _MANY)
    python: Line | None = option(None, _ONE)
    stage_dir: Line | None = option(None, _ONE)
    warning: PositiveCount | None = option(None, "an integer of at least 1")
    max_requeues: Count | None = option(None, "an integer of at least 0")
    sbatch: (
        Annotated[list[Annotated[Line, pydantic.AfterValidator(_flag)]], pydantic.BeforeValidator(_as_texts)] | None
    ) = option(None, "options such as --qos=long")
