"""The side that has the global model: rounds, their state, and the run folder of a federation."""
