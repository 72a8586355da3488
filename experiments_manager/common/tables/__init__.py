"""Tables with a header, and all that is wrong with some files, told at once."""
