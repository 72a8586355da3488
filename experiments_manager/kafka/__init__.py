"""Kafka: the format of records, producing them, and reading a topic from offset to offset."""
