"""TOML text; the standard library reads TOML but does not write it."""

import json
from collections.abc import Mapping


def to_toml(values: Mapping[str, object], table: str = "") -> str:
    """TOML of strings, numbers, lists of these, and nested mappings."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    # A JSON string, number or list of them is TOML too; keys are quoted, since a file name holds a dot.
    lines = [f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in plain.items()]
    header = f"\n[{table}]\n" if table and plain else ""
    tables = [to_toml(value, f"{table}.{_key(key)}" if table else _key(key)) for key, value in nested.items()]
    return header + "".join(lines) + "".join(tables)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)
