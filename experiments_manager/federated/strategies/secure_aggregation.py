"""The words of messages by which updates are masked."""

SECURE = "secure"
"""The record of a message of the protocol: the node that it is for, the round, and what all masks are made for."""
NODE, ROUND, SHARES, THRESHOLD, MAX_WEIGHT = "node-id", "server-round", "shares", "threshold", "max-weight"
