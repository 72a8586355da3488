"""Reading topics: the order of records, places in a topic, groups, shuffling, what cannot be decoded."""
