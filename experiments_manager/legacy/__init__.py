"""What only settings files of the legacy framework need."""
