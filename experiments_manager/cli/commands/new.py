"""`experiments_manager new`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

STARTER = Path(__file__).with_name("starter")
GALLERY = Path(__file__).parents[2] / "gallery"
"""The examples; in the repository a link to the folder beside the package."""
_TOGETHER = {"hyperopt": ("regression", "classification")}
"""Examples that use files of others, and these."""
_COPY_NOTE = (
    "*A copy of the gallery's page. Run its commands in {}; what it names in `docs/`, `tools/` and `examples/` is in "
    "the repository of experiments_manager.*"
)


def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    example: Annotated[
        str | None, typer.Option(metavar="NAME", help="Copy an example of the gallery, e.g. timeseries.")
    ] = None,
) -> None:
    """Make a starter experiment that trains as it stands."""
    if example is None:
        files = [make_starter(directory)]
    else:
        files = copy_example(example, directory)
    command = "sweep" if files[0].name.startswith("mysweep_") else "train"
    typer.echo(
        f"{files[0]} is ready. Start it with\n\n    {shlex.join(['experiments_manager', command, str(files[0])])}\n"
    )
    if (page := files[0].with_name("README.md")).is_file():
        typer.echo(f"{page} says what it does, and what else is there.")


def make_starter(directory: Path) -> Path:
    """Write the starter experiment.

    Args:
        directory: The folder to write to; made where it is missing. It also names the experiment.

    Returns:
        The settings file, `mysettings_<name of the folder>.py`.

    Raises:
        RunError: A file of that name exists already, or the folder cannot be written.
    """
    from experiments_manager.runs import RunError
    from experiments_manager.runs.errors import explain

    name = re.sub(r"\W+", "_", directory.absolute().name).strip("_") or "experiment"
    target = directory / f"mysettings_{name}.py"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write((STARTER / "mysettings_starter.py").read_text(encoding="utf-8"))
    except OSError as error:
        if target.exists():
            raise RunError(f"{target} exists already. Expected a new folder. Choose another one.") from error
        raise explain(error, "write", target) from error
    return target


def examples() -> list[str]:
    """Return the names of the examples: none where the package was installed without them."""
    return sorted(path.name for path in GALLERY.glob("*") if any(path.glob("my*_*.py")))


def copy_example(name: str, directory: Path) -> list[Path]:
    """Copy an example, and those that it uses files of, each then in a folder of its own.

    Args:
        name: Its name in the gallery.
        directory: The folder to write to; made where it is missing.

    Returns:
        Its settings or sweep files, as copied.

    Raises:
        CommandLineError: There is no example of this name, or there are none at all.
        RunError: A file of the same name exists already, or the folder cannot be written.
    """
    from experiments_manager.common.errors import CommandLineError
    from experiments_manager.common.suggestions import did_you_mean

    known = examples()
    if not known:
        raise CommandLineError(
            f"This installation has no examples. Expected them in {GALLERY}. Take an image or a wheel for training."
        )
    if name not in known:
        hint = did_you_mean(name, known)
        raise CommandLineError(f"Unknown example {name!r}. Expected one of {', '.join(known)}. {hint}".rstrip())
    others = _TOGETHER.get(name, ())
    copies = {
        source: (directory / each if others else directory) / source.name
        for each in (name, *others)
        for source in sorted((GALLERY / each).iterdir())
        if source.is_file()
    }
    if any(source.match("merit*.py") for source in copies):
        copies |= {source: directory / source.name for source in sorted(GALLERY.glob("*.py"))}
    names = {f"examples/{each}/": f"{each}/" if others else "" for each in (name, *others)}
    names["examples/figures_of_merit.py"] = "figures_of_merit.py"
    _copy(copies, directory, lambda text: _as_copied(text, names))
    return [target for source, target in copies.items() if source.parent.name == name and source.match("my*_*.py")]


def _as_copied(text: str, names: Mapping[str, str]) -> str:
    """Return a page or a program of the gallery as it stands in a copy, whose folder its commands are run in.

    Args:
        text: As it is in the gallery, where commands are run in the root of the repository.
        names: What the folders of the examples, and the program for all of them, are called in the copy.
    """
    from experiments_manager.common.installation import install_command

    for folder, copied in names.items():
        text = text.replace(folder, copied)
    text = re.sub(
        r'^pip install "\.\[([\w,-]+)\]"',
        lambda found: install_command(*found.group(1).split(",")),
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", text)
    title, _, rest = text.partition("\n")
    return (
        f"{title}\n\n{_COPY_NOTE.format('this folder' if '' in names.values() else 'the folder above')}\n{rest}"
        if title.startswith("# ")
        else text
    )


def _copy(copies: dict[Path, Path], directory: Path, edit: Callable[[str], str]) -> None:
    """Copy files, none of which may be there.

    Args:
        copies: Sources, and where each goes.
        directory: The folder that is made.
        edit: Gives a page or a program as it shall stand there.

    Raises:
        RunError: One is there, or cannot be written.
    """
    from experiments_manager.runs import RunError
    from experiments_manager.runs.errors import explain

    for target in copies.values():
        if target.exists():
            raise RunError(f"{target} exists already. Expected a new folder. Choose another one.")
    try:
        for source, target in copies.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            content = source.read_bytes()
            if source.suffix in (".md", ".py"):
                content = edit(content.decode()).encode()
            with target.open("xb") as file:
                file.write(content)
    except OSError as error:
        raise explain(error, "write", directory) from error
