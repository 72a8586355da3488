"""The run folder: layout, manifest, snapshot, provenance, listing and comparison."""
