"""Where a run may be kept, and the command that repeats it."""

from pathlib import Path
from typing import Any

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.flags import arguments_of

OUT = "--out="
_NEVER_AGAIN = ("--recompute",)  # a run that goes on would begin anew


def command_of(name: str, config: Any, *arguments: str, out: Store) -> list[str]:
    """Return what ``tenfold`` is called with to do this run again, in ``out``.

    The name alone where no command line can say it: options that only Python can give.
    """
    flags = arguments_of(config)
    if flags is None:
        return name.split()
    kept = [flag for flag in flags if not flag.startswith(OUT) and flag not in _NEVER_AGAIN]
    rest = ["--", *arguments] if arguments else []
    return [*name.split(), *kept, f"{OUT}{out.uri}", *rest]


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
