"""The answers of a search as objects for JSON: the same for the command and for the API."""

from __future__ import annotations

from collections.abc import Sequence

from dhn.search.items import Result


def answer(query: dict, results: Sequence[Result]) -> dict:
    """One query's answer: {"query": query, "results": [{"rank", "row", "key", "distance", "similarity", "labels",
    "path"}, ...]}.

    query: what was asked, such as {"key": ...}, {"image": name} or {"codes": file, "row": number}, and the options.
    """
    return {"query": query, "results": [result._asdict() for result in results]}
