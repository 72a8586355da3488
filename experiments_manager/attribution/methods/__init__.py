"""Methods that explain: each gives a map of the input, floats [samples, …], positive where it speaks for the class."""
