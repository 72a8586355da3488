"""The settings module: its schema, loading, overrides and messages."""
