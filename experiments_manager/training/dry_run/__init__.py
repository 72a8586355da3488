"""The dry run: all parts of an experiment looked at once, with stand-ins for what fails."""
