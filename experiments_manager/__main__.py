"""`python -m experiments_manager` is the command line."""

from experiments_manager.cli.entry import main

if __name__ == "__main__":
    main()
