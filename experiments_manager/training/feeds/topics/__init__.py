"""Feeds whose samples come from Kafka topics, and the samples that are sent there."""
