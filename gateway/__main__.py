"""`python -m gateway`: the same as the command `headworks`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
