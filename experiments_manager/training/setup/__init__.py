"""From checked settings to everything that trains."""
