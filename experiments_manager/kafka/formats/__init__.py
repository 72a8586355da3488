"""Decoders of records that other programs wrote: JSON, Avro, and those that a hook of the settings reads."""
