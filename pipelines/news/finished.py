"""The manifest that marks a run as whole: written last, and held against the files when opened."""

from collections.abc import Mapping

from cluster.errors import InputError
from cluster.lock import check_held
from cluster.storage import Store

MANIFEST = "manifest.json"
RESULTS = (
    "config.json",
    "dictionary.parquet",
    "dictionary.csv",
    "dictionary_wide.parquet",
    "dictionary_wide.csv",
    "path.parquet",
    "coef_path.parquet",
    "daily_ic.parquet",
    "metrics.json",
    "report.html",
    "model/model.json",
    "model/columns.parquet",
    "rejects.csv",
    "truth.json",
    "audit.json",
    "audit.parquet",
)
_FIX = "Name a run folder that `tenfold news fit` printed, or run the same fit again to finish it."


def write_manifest(run: Store, source: Mapping[str, str]) -> None:
    """List every result file with its size and checksum, beside the ``source`` of the run."""
    check_held(run)
    files = [name for name in RESULTS if run.exists(name)]
    run.write_json(
        MANIFEST,
        {
            "input": dict(source),
            "files": {
                name: {"size_bytes": run.size(name), "blake2b": run.checksum(name)}
                for name in files
            },
        },
    )


def require_finished(run: Store, *names: str) -> None:
    """Make sure that ``run`` is whole, and that its files ``names`` are those it wrote.

    Raises
    ------
    InputError
        When the folder holds no finished run, or a file is gone or was changed.
    """
    if not run.exists(MANIFEST):
        raise InputError(str(run), "no finished news run", fix=_FIX)
    try:
        written = run.read_json(MANIFEST)["files"]
        recorded = {name: (written[name]["size_bytes"], written[name]["blake2b"]) for name in names}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{run}/{MANIFEST}", "damaged", fix=_FIX) from error
    for name, (size, checksum) in recorded.items():
        if run.size(name) is None:
            raise InputError(f"{run}/{name}", "missing", fix=_FIX)
        if run.size(name) != size or run.checksum(name) != checksum:
            raise InputError(f"{run}/{name}", "not as the run wrote it", fix=_FIX)
