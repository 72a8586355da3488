"""Commands about the machine that runs are made on."""
