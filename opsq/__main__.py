"""`python -m opsq` is `opsq`."""

from opsq.cli.main import main

if __name__ == "__main__":
    main()
