"""``python -m pipelines`` is the ``tenfold`` command, for job submission from a clone."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
