"""Turn PostgreSQL's text into Python's values; what Python has no value for stays text."""

from __future__ import annotations

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.abc import Loader as LoaderProtocol
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

import codegym

PLAIN = ("bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "bytea")
"""Types of which every value has one in Python."""

TIMES = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
"""Types of which some values have none: infinity, 24:00, years before 1 and after 9999."""


class TimeLoader(Loader):
    """Loads a date or time; one that Python does not have stays text."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._strict = _loader(oid)(oid, context)

    def load(self, data: Buffer) -> codegym.Cell:
        """Return the value of PostgreSQL's text."""
        try:
            value: codegym.Cell = self._strict.load(data)
        except (psycopg.DataError, ValueError, OverflowError):
            return bytes(data).decode()
        return value


def _loader(oid: int) -> type[LoaderProtocol]:
    loader = psycopg.adapters.get_loader(oid, Format.TEXT)
    if loader is None:
        raise KeyError(oid)
    return loader


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(types=psycopg.adapters.types)
    # 0 stands for all other types: arrays, JSON, UUIDs, ranges, rows, addresses.
    adapters.register_loader(0, TextLoader)
    for name in PLAIN:
        oid = psycopg.adapters.types[name].oid
        adapters.register_loader(oid, _loader(oid))
    for name in TIMES:
        adapters.register_loader(psycopg.adapters.types[name].oid, TimeLoader)
    return adapters


ADAPTERS = _adapters()
"""How the cells of a result become values."""
