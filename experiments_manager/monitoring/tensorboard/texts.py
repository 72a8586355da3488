"""Texts in Markdown for TensorBoard's text page: settings, hparams, the state of the user's repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments_manager.runs import Run

LARGEST_DIFF = 50_000
"""Characters of the uncommitted changes that are shown; the run folder has them all."""


def run_texts(run: Run) -> dict[str, str]:
    """Give what the text page shows of a run: `settings` (the source), `values` (those in force), and `git`."""
    manifest = run.manifest
    source = code_block(run.settings_file.read_text(encoding="utf-8", errors="replace"))
    overrides = manifest.get("overrides")
    diff = run.git_diff.read_text(encoding="utf-8", errors="replace") if run.git_diff.exists() else ""
    return {
        "settings": f"{as_table(overrides, 'override')}\n\n{source}" if overrides else source,
        "values": as_table(manifest.get("settings") or {}, "setting"),
        "git": git_text(manifest.get("git"), diff),
    }


def git_text(git: Mapping[str, Any] | None, diff: str = "") -> str:
    """Give the state of the user's repository when the run was started.

    Args:
        git: What stands in run.json, `None` outside a repository.
        diff: The uncommitted changes.
    """
    if git is None:
        return "The settings file was in no git repository."
    state = {
        "commit": git.get("commit") or "none yet",
        "branch": git.get("branch") or "none checked out",
        "uncommitted changes": "yes" if git.get("dirty") else "no",
        "untracked files of the run": ", ".join(git.get("untracked") or ()) or "none",
    }
    text = as_table(state, "git")
    if not diff:
        return text
    shown = diff[:LARGEST_DIFF]
    cut = f"\n\nCut here: the run folder's git.diff has {len(diff)} characters." if len(diff) > len(shown) else ""
    return f"{text}\n\n{code_block(shown, 'diff')}{cut}"


def code_block(code: str, language: str = "python") -> str:
    """Set code in Markdown, so that TensorBoard's text page keeps its lines."""
    fence = "```"
    while fence in code:  # it may hold such a block itself
        fence += "`"
    return f"{fence}{language}\n{code}\n{fence}"


def as_table(values: Mapping[str, Any], what: str) -> str:
    """Set names and values as a table in Markdown; `what` heads the column of names."""
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join([f"| {what} | value |", "| --- | --- |", *rows])


def _cell(value: Any) -> str:
    return str(value).replace("|", chr(92) + "|").replace("\n", " ")
