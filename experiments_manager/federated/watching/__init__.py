"""What is written, drawn and exported of a federation, besides what a run has."""
