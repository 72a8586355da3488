"""One round after the other: who is asked, what comes back, and what the strategy makes of it."""
