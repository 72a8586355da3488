"""The format of our own records: structures, columns, encoding and decoding; docs/kafka.md describes it."""
