"""What only settings files of the framework before this one need."""
