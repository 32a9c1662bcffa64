"""Environment to settings: one frozen Struct per service, every mistake reported at once.

A field `nats_url` is read from `KITE_NATS_URL`; a service's own fields may carry a prefix of their
own in the name (`sim_speed` -> `KITE_SIM_SPEED`). Values are text: numbers, booleans
(1/0/true/false/yes/no/on/off) and comma-separated lists are converted by the field's type, bounds
come from `msgspec.Meta`, and a cross-field check may live in `__post_init__` (raise ValueError).
What one field makes necessary of others, `needs` names.

A secret may stand in a file instead, which `KITE_NATS_URL_FILE` then names: files can be shown to
one container alone, while its environment is shown to everybody who may inspect it.

No value of a field whose name says it is secret ever appears in an error.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import msgspec

from libs.common.errors import SettingsError

__all__ = ["ServiceSettings", "env_name", "load", "looks_secret"]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SECRET_WORDS = ("password", "secret", "token", "dsn", "url", "key")

Settings = TypeVar("Settings", bound=msgspec.Struct)

Port = typing.Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Positive = typing.Annotated[int, msgspec.Meta(ge=1)]
LogLevel = typing.Literal["debug", "info", "warning", "error"]
StoreSource = typing.Literal["demo", "csv", "schwab"]


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service on the bus needs to know.

    `metrics_port` 0 takes any free port. `instance` names this process among several of one
    service. `source` is whose data the store holds.
    """

    nats_url: str
    partitions: Positive = 1
    source: StoreSource = "demo"
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 0
    log_level: LogLevel = "info"
    stop_deadline_s: Positive = 10

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name the optional fields that what is set makes necessary."""
        return ()


def env_name(field: str) -> str:
    """Return the environment variable of a field: `flush_ms` -> `KITE_FLUSH_MS`."""
    return f"KITE_{field.upper()}"


def looks_secret(field: str) -> bool:
    """Tell whether a field's value must never be shown."""
    return any(word in field.lower() for word in _SECRET_WORDS)


def load(cls: type[Settings], environ: Mapping[str, str]) -> Settings:
    """Build `cls` from `environ`; an empty variable counts as unset.

    Raises SettingsError with one line per problem: what is missing, what does not convert, what is
    out of bounds.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    complete = True
    for field in msgspec.structs.fields(cls):
        name = env_name(field.name)
        text = ""
        try:
            text = _text(field.name, environ)
            if text:
                values[field.name] = _convert(text, field.type)
            elif field.required:
                complete = False
                problems.append(f"{name}: required, but not set")
        except (ValueError, msgspec.ValidationError) as error:
            complete = complete and not field.required
            shown = "its value" if looks_secret(field.name) else repr(text)
            problems.append(f"{name}: {shown} {_reason(error)}")
    for field_name in getattr(cls, "needs", _nothing)(values):
        if field_name not in values:
            complete = False
            problems.append(f"{env_name(field_name)}: required, but not set")
    settings = None
    if complete:
        # A wrong optional value is left at its default, so that checks across fields still speak.
        try:
            settings = cls(**values)
        except ValueError as error:
            problems.append(str(error))
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def _nothing(_: Mapping[str, Any]) -> tuple[str, ...]:
    return ()


def _text(field: str, environ: Mapping[str, str]) -> str:
    """Return a variable's text, or what stands in the file named beside it; raises ValueError."""
    name = env_name(field)
    text = environ.get(name, "").strip()
    place = environ.get(f"{name}_FILE", "").strip()
    if text or not place or not looks_secret(field):
        return text
    try:
        return Path(place).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"the file of {name}_FILE, {place}: {error.strerror}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    return f"is not valid: {text[:1].lower()}{text[1:]}"


def _convert(text: str, kind: Any) -> Any:
    """Convert one variable's text to a field's type; raises ValueError or ValidationError."""
    base = _plain(kind)
    origin = typing.get_origin(base)
    if origin in (tuple, list, frozenset, set):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return msgspec.convert(parts, kind, strict=False)
    if base is bool:
        return _boolean(text)
    if isinstance(base, type) and issubclass(base, msgspec.Struct):
        return msgspec.json.decode(text, type=base)
    return msgspec.convert(text, kind, strict=False)


def _plain(kind: Any) -> Any:
    """Strip Annotated and Optional: what remains decides how text is split."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _plain(typing.get_args(kind)[0])
    if origin in (Union, types.UnionType):
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else kind
    return kind


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("expected 1, true, yes, on or 0, false, no, off")
