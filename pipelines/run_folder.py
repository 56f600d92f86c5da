"""Where a run may be kept."""

from pathlib import Path

from cluster.errors import InputError


def refuse_package_folder(out: str | None) -> None:
    """Raise InputError for a run folder that would go away with a submitted job.

    Such a job runs in Ray's copy of the package, and that is removed after it.
    """
    if out is not None and ("://" in out or Path(out).is_absolute()):
        return
    if "runtime_resources" in Path.cwd().parts:
        raise InputError(
            "--out",
            "would vanish with this job's working directory",
            expected="an absolute path or s3:// address that every machine sees",
            got=out,
            fix="Pass --out with one.",
        )
