"""`python -m experiments_manager` is the command line."""

from experiments_manager.cli.main import main

if __name__ == "__main__":
    main()
