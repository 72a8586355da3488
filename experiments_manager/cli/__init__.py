"""The command line: one file a command."""

TRAINING_COMMANDS = ("train", "resume", "federate", "sweep")
"""Commands that end as `interrupted` when a signal comes; the other commands end by it."""
