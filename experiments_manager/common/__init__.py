"""What every room needs once: errors and exit codes, atomic files, background work, signals, suggestions."""
