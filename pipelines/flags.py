"""Command-line flags from the fields of configuration dataclasses, so no default is typed twice."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import InputError


def flags_of(config: type) -> list[inspect.Parameter]:
    """Return a keyword parameter for each field of ``config`` and of the ones inside it.

    Fields of one name are one flag, described by the first.
    """
    return [*{parameter.name: parameter for parameter in reversed(_flags(config))}.values()][::-1]


def _flags(config: type) -> list[inspect.Parameter]:
    parameters: list[inspect.Parameter] = []
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            parameters += _flags(kind)
            continue
        option = typer.Option(
            f"--{field.name.replace('_', '-')}",
            help=field.metadata.get("help"),
            rich_help_panel=field.metadata.get("panel") or _panel(config),
        )
        required = field.default is dataclasses.MISSING
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else _shown(field.default),
                annotation=Annotated[_flag_type(kind), option],
            )
        )
    return parameters


def with_flags_of(config: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``command(config, **others)`` into a command with the flags of ``config``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]
        derived = flags_of(config)
        names = [parameter.name for parameter in derived]

        def run(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in names}
            command(build(config, chosen), **values)

        run.__signature__ = inspect.Signature([*derived, *own])  # type: ignore[attr-defined]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        return run

    return decorate


def build(config: type, values: Mapping[str, Any]) -> Any:
    """Build ``config``, and the configurations inside it, from flat flag values."""
    hints = typing.get_type_hints(config)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            arguments[field.name] = build(kind, values)
        elif field.name in values:
            arguments[field.name] = _parsed(kind, values[field.name], field.name)
    return config(**arguments)


def arguments_of(config: Any) -> list[str] | None:
    """Return the flags that make ``config``, defaults spelled out; None where no flags can.

    Another version may have other defaults, and a file named by ``@`` may change.
    """
    arguments: list[str] = []
    values = _values(config)
    if values is None:
        return None
    for parameter in flags_of(type(config)):
        name, value = parameter.name, values[parameter.name]
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            if value:
                arguments.append(option)
            elif parameter.default:
                return None
        elif isinstance(value, tuple):
            items = [_text(item) for item in value]
            if any("," in item or item != item.strip() or not item for item in items) or (
                items and items[0].startswith("@")
            ):
                return None
            arguments.append(f"{option}={','.join(items)}")
        elif value is not None:
            arguments.append(f"{option}={_text(value)}")
        elif parameter.default is not None:
            return None
    return arguments


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _values(config: Any) -> dict[str, Any] | None:
    """Return flat flag values; None where fields of one name, which are one flag, differ."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        inner = {field.name: value}
        if dataclasses.is_dataclass(value):
            found = _values(value)
            if found is None:
                return None
            inner = found
        if any(name in values and values[name] != one for name, one in inner.items()):
            return None
        values |= inner
    return values


def _panel(config: type) -> str:
    return config.__name__.removesuffix("Config")


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def _flag_type(kind: Any) -> Any:
    """Lists are typed as one text: comma-separated, or @file with an item a line."""
    if _is_list(kind):
        return str
    if isinstance(kind, types.UnionType):
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        return inner[0] | None
    return kind


def _shown(default: Any) -> Any:
    return ",".join(map(str, default)) if isinstance(default, tuple) else default


def _parsed(kind: Any, value: Any, name: str) -> Any:
    if not _is_list(kind) or not isinstance(value, str):
        return value
    option = f"--{name.replace('_', '-')}"
    if value.startswith("@"):
        try:
            items = Path(value[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                option, f"cannot read {value[1:]}", got=error, fix="Name a text file after the @."
            ) from error
    else:
        items = value.split(",")
    item_type = typing.get_args(kind)[0]
    try:
        return tuple(item_type(item.strip()) for item in items if item.strip())
    except ValueError as error:
        raise InputError(
            option, "not a list of numbers", expected="such as 0.1,0.05", got=value
        ) from error
