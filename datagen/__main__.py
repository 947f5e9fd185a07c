"""`python -m datagen` is the command `datagen`."""

from datagen.cli.app import main

if __name__ == "__main__":
    main()
