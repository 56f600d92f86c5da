"""The engines by name."""

from actors.lasso.solution import Engine

ENGINES = ("newton", "celer", "sklearn")


def make_engine(name: str) -> Engine:
    """Return a fresh engine.

    Engines are imported only when asked for: celer alone costs seconds at import.

    Raises
    ------
    ValueError
        For a name that is not one of ``ENGINES``.
    """
    if name == "newton":
        from actors.lasso.newton import NewtonEngine

        return NewtonEngine()
    if name == "celer":
        from actors.lasso.celer_engine import CelerEngine

        return CelerEngine()
    if name == "sklearn":
        from actors.lasso.sklearn_engine import SklearnEngine

        return SklearnEngine()
    raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
