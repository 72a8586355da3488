"""Jobs on a cluster: command lines of ours, submitted to SLURM, that go on until they are done."""
