"""The user's file: read, checked and executed."""
