#!/usr/bin/env python3
"""Draw the rooms of the package and the imports between them, as they are in the code.

    python tools/draw_rooms.py            # writes docs/rooms.svg
    python tools/draw_rooms.py --check    # fails where the picture is not up to date

The floors are those of the contract `rooms` in setup.cfg. A line leaves each room on the right and comes back
as an arrow to every room that it imports. Needs grimp, which comes with import-linter.
"""

from __future__ import annotations

import argparse
import configparser
import html
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "experiments_manager"
PICTURE = ROOT / "docs" / "rooms.svg"
MARGIN, STEP, BOX = 20, 78, 600
LANES, LANE = MARGIN + BOX + 40, 26
COLOURS = ("#4c6a92", "#b5583a", "#3d8a63", "#8a5aa8", "#a8862a", "#3a8fa8", "#a83a6a")
STYLE = """
text { font-family: sans-serif; fill: #1d2733 } .name { font-size: 15px; font-weight: 600 } .what { font-size: 11px }
.rooms { font-size: 11px; font-family: monospace; fill: #4c6a92 }
rect { fill: #eef3f8; stroke: #5b7896 } path[stroke] { fill: none } path { stroke-width: 1.5 }
"""


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the roof first, as setup.cfg has them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["importlinter:contract:rooms"]["layers"].split("\n")
    return [[room.strip().rpartition(".")[2] for room in line.split("|")] for line in lines if line.strip()]


def imports_between(rooms: list[str]) -> dict[tuple[str, str], int]:
    """Count the imports between any two rooms."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True)
    counts: dict[tuple[str, str], int] = {}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            pair = tuple((name.split(".") + [""])[1] for name in (importer, imported))
            if pair[0] != pair[1] and set(pair) <= set(rooms):
                counts[pair] = counts.get(pair, 0) + 1
    return counts


def purpose(room: str) -> tuple[str, int, str]:
    """Return the first sentence of a room's docstring, how many modules it holds, and the rooms in it."""
    folder = ROOT / PACKAGE / room
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    first = file.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[0].strip().splitlines()[0]
    modules = [path for path in folder.rglob("*.py") if path.name != "__init__.py"] if folder.is_dir() else [file]
    inner = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("__init__.py"))[1:]
    return first.rstrip("."), len(modules), "   ".join(f"{name}/" for name in inner)


def draw() -> str:
    """Return the picture as SVG: one box a room, one lane a room that imports, one arrow for each room it imports."""
    rooms = [room for row in floors() for room in row if room != "__main__"]
    counts = imports_between(rooms)
    importers = [room for room in rooms if any(pair[0] == room for pair in counts)]
    height = 2 * MARGIN + len(rooms) * STEP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LANES + len(importers) * LANE + MARGIN} {height}">',
        f"<style>{STYLE}</style>",
    ]
    for lane, room in enumerate(importers):
        parts += _lane(room, lane, rooms, counts)
    for number, room in enumerate(rooms):
        what, modules, inner = purpose(room)
        held = f"{modules} module{'' if modules == 1 else 's'}"
        y = MARGIN + number * STEP
        parts += [
            f'<rect x="{MARGIN}" y="{y}" width="{BOX}" height="{STEP - 14}" rx="6"/>',
            f'<text class="name" x="{MARGIN + 12}" y="{y + 18}">{room}</text>',
            f'<text class="what" x="{MARGIN + BOX - 12}" y="{y + 18}" text-anchor="end">{held}</text>',
            f'<text class="what" x="{MARGIN + 12}" y="{y + 35}">{html.escape(what)}</text>',
            f'<text class="rooms" x="{MARGIN + 12}" y="{y + 53}">{inner}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _lane(room: str, lane: int, rooms: list[str], counts: dict[tuple[str, str], int]) -> list[str]:
    """Draw what one room imports: a line that leaves it on the right, goes down, and comes back to each of those."""
    middle = {name: MARGIN + number * STEP + (STEP - 14) / 2 for number, name in enumerate(rooms)}
    imported = [name for name in rooms if (room, name) in counts]
    x, right, colour = LANES + lane * LANE, MARGIN + BOX, COLOURS[lane % len(COLOURS)]
    leaves = middle[room] + 10
    parts = [f'<path d="M{right} {leaves}H{x}V{max(middle[name] for name in imported) - 6}" stroke="{colour}"/>']
    parts.append(f'<circle cx="{right + 3}" cy="{leaves}" r="3" fill="{colour}"/>')
    for name in imported:
        y, title = middle[name] - 6, f"{room} imports {name}: {counts[room, name]}"
        parts += [
            f'<path d="M{x} {y}H{right + 7}" stroke="{colour}"><title>{title}</title></path>',
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"><title>{title}</title></circle>',
            f'<path d="M{right} {y}l8 -4v8z" style="fill:{colour};stroke:none"/>',
        ]
    return parts


def main() -> int:
    """Write the picture, or compare it with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the picture is outdated")
    check = parser.parse_args().check
    picture = draw()
    if check and (not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture):
        print("docs/rooms.svg is outdated. Run: python tools/draw_rooms.py", file=sys.stderr)
        return 1
    if not check:
        PICTURE.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
