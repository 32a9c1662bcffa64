"""What a browser loads: the built page, its settings, and the page that explains the interface.

Only files below the page's directory are served. Files under `assets/` have names that change with
their content, so browsers keep them; everything else is asked for again each time. Nothing here
needs a script or style within the text, so the policy of the gate can forbid those.
"""

from __future__ import annotations

import asyncio
import gzip
import html
import mimetypes
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from services.gateway.http import JSON

__all__ = ["HANDLERS", "Page"]

AnyRequest = Request[Any, Any, Any]

FILE_BYTES_MAX = 16 << 20
_COMPRESSED_MAX = 64
_COMPRESSIBLE = ("text/", "application/javascript", "application/json", "image/svg")
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".json": JSON,
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".ico": "image/x-icon",
}
_CONFIG = msgspec.json.encode({"gateway": "", "supabase_url": "", "supabase_anon_key": ""})
_UNBUILT = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>Alpha Kite Max</title></head>
<body><main><h1>The page is not there yet</h1>
<p>The first <code>./kite up</code> builds it within a minute. It then opens here by itself.</p>
<p>If <code>./kite up</code> said that it could not, or was not what started this gateway, build it
in the checkout with Node 20.19 or newer:</p>
<pre>npm --prefix dashboard ci
npm --prefix dashboard run build</pre>
<p>The gateway runs; its interface is described at <a href="/api/docs">/api/docs</a>.</p>
</main></body></html>
"""


class Page:
    """The files of the built page."""

    def __init__(self, directory: Path) -> None:
        self._root = directory.resolve()
        self._compressed: dict[tuple[Path, int], bytes] = {}

    async def file(self, name: str, *, compressed: bool) -> tuple[bytes, str, bool] | None:
        """Return a file's content, its type and whether it is compressed, or None."""
        return await asyncio.to_thread(self._read, name, compressed)

    def _read(self, name: str, compressed: bool) -> tuple[bytes, str, bool] | None:
        path = self._path(name)
        if path is None:
            return None
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
        kind = kind or "application/octet-stream"
        try:
            if not compressed or not kind.startswith(_COMPRESSIBLE):
                return path.read_bytes(), kind, False
            return self._compress(path), kind, True
        except FileNotFoundError:  # a new page is just being put in place
            return None

    def _compress(self, path: Path) -> bytes:
        key = (path, path.stat().st_mtime_ns)
        body = self._compressed.get(key)
        if body is None:
            body = gzip.compress(path.read_bytes(), mtime=0)
            if len(self._compressed) >= _COMPRESSED_MAX:
                self._compressed.clear()
            self._compressed[key] = body
        return body

    def _path(self, name: str) -> Path | None:
        """Return the path of a file below the root, wherever links lead."""
        parts = name.split("/")
        if "\0" in name or any(part.startswith(".") for part in parts):
            return None
        try:
            path = (self._root / name).resolve()
            fits = path.is_file() and path.stat().st_size <= FILE_BYTES_MAX
        except OSError:
            return None
        return path if fits and path.is_relative_to(self._root) else None


@get("/config.json", include_in_schema=False, sync_to_thread=False)
def config() -> Response[bytes]:
    """Tell the page that its data come from here."""
    return Response(_CONFIG, media_type=JSON, headers={"Cache-Control": "no-cache"})


@get(["/", "/{name:path}"], include_in_schema=False)
async def page(request: AnyRequest, state: State, name: FromPath[str] = "/") -> Response[bytes]:
    """Serve a file of the page."""
    name = name.lstrip("/") or "index.html"
    if name.startswith("api/"):
        raise NotFoundException
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    found = await state.page.file(name, compressed=compressed)
    if found is None and name == "index.html":
        headers = {"Cache-Control": "no-store"}
        return Response(_UNBUILT, status_code=503, media_type="text/html", headers=headers)
    if found is None:
        raise NotFoundException
    body, kind, is_compressed = found
    kept = name.startswith("assets/")
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if kept else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if is_compressed:
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=kind, headers=headers)


# -- the interface, explained ---------------------------------------------------------------------

_STYLE = b"""body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #1c2430; background: #fff; }
code { font: 14px ui-monospace, monospace; background: #eef1f5; padding: .1em .3em; }
h3 { font-size: 1rem; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; }
section { border-top: 1px solid #ccd3dc; margin-top: 1.5rem; }
@media (prefers-color-scheme: dark) { body { color: #dde3ea; background: #12161c; }
  code { background: #222a34; } a { color: #7db7ff; } section { border-color: #333d49; } }
"""


@get("/api/docs/style.css", include_in_schema=False, sync_to_thread=False)
def docs_style() -> Response[bytes]:
    """Return the looks of the page below."""
    return Response(_STYLE, media_type="text/css", headers={"Cache-Control": "no-cache"})


@get("/api/docs", include_in_schema=False)
async def docs(request: AnyRequest) -> Response[bytes]:
    """Describe the interface for people, from the same document and without any script."""
    document = request.app.openapi_schema.to_schema()
    structs = document["components"]["schemas"]
    sections = "".join(
        _operation(method, path, operation, structs)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    )
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Alpha Kite Max: API</title>'
        '<link rel="stylesheet" href="/api/docs/style.css"></head><body><main><h1>API</h1>'
        f"<p>{html.escape(document['info']['description'])} "
        '<a href="/api/openapi.json">OpenAPI document</a></p>'
        f"{sections}</main></body></html>"
    )
    return Response(text.encode(), media_type="text/html", headers={"Cache-Control": "no-cache"})


def _operation(method: str, path: str, operation: dict[str, Any], structs: dict[str, Any]) -> str:
    summary = operation.get("summary", "")
    end = "" if summary.endswith("?") else "."
    rows = "".join(
        f"<tr><td><code>{html.escape(parameter['name'])}</code></td>"
        f"<td>{'required' if parameter.get('required') else 'optional'}</td>"
        f"<td>{html.escape(_words(parameter))}</td></tr>"
        for parameter in operation.get("parameters", [])
    )
    table = f"<table><tbody>{rows}</tbody></table>" if rows else ""
    responses = operation.get("responses", {})
    answer: dict[str, Any] = next((responses[each] for each in responses if each < "300"), {})
    body = _fields("Body", operation.get("requestBody", {}), structs)
    return (
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(summary)}{end} {html.escape(operation.get('description', ''))}</p>"
        f"{table}{body}<p>Answers: {', '.join(sorted(responses))}</p>"
        f"{_fields('Answer', answer, structs)}</section>"
    )


def _fields(title: str, message: dict[str, Any], structs: dict[str, Any]) -> str:
    """Draw the fields of a body or an answer in JSON, then those of what stands within it."""
    schema = message.get("content", {}).get(JSON, {}).get("schema", {})
    names, drawn = _named(schema), ""
    for name in names:  # grows on the way
        names += [inner for inner in _named(structs[name]) if inner not in names]
        fields = structs[name].get("properties", {}).items()
        needed = structs[name].get("required", ())
        rows = "".join(
            f"<tr><td><code>{html.escape(field)}</code></td><td>{html.escape(_kind(kind))}"
            f"{'' if field in needed else ', may be absent'}</td></tr>"
            for field, kind in fields
        )
        shown = title if name == names[0] else name
        drawn += f"<h3>{html.escape(shown)}</h3><table><tbody>{rows}</tbody></table>"
    return drawn


def _named(schema: Any) -> list[str]:
    """Return the structs that a schema names, each once."""
    if isinstance(schema, dict) and "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    if not isinstance(schema, dict | list):
        return []
    parts = schema.values() if isinstance(schema, dict) else schema
    return list(dict.fromkeys(name for part in parts for name in _named(part)))


def _kind(schema: dict[str, Any]) -> str:
    """Say in words what a field holds."""
    if "$ref" in schema:
        return _named(schema)[0]
    if "oneOf" in schema:
        return " or ".join(_kind(each) for each in schema["oneOf"])
    if "enum" in schema:
        return ", ".join("null" if value is None else str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    inner = schema.get("additionalProperties")
    if isinstance(inner, dict) and inner:
        return f"object of {_kind(inner)}"
    return str(schema.get("type", "anything"))


def _words(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    choices = [schema, *schema.get("oneOf", []), *schema.get("anyOf", [])]
    values = [str(value) for choice in choices for value in choice.get("enum", []) if value]
    text = str(parameter.get("description", ""))
    return f"{text}: {', '.join(values)}" if values else text


HANDLERS = [config, docs_style, docs, page]
