"""Which parts of an input a model's answer rests on: maps by several methods, and numbers of what each is worth."""
