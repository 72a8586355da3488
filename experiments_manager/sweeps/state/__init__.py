"""What a sweep knows and keeps: its folder, the journal of all that happened, and the trials that follow from it."""
