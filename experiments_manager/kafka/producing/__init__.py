"""Sending a split: records that say who wrote them, pace, and going on after a kill."""
