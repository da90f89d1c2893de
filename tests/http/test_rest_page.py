"""docs/rest.md shows a call of every route; tests/project/test_docs.py runs them all."""

from __future__ import annotations

import re

import pytest

from connectors_grpc.http.transcoding import Binding, bindings
from connectors_grpc.rpc.server import DESCRIPTORS
from tests.project.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "rest.md"
SHOWN = "\n".join(blocks(PAGE, "sh", "runnable")).replace("\\\n", " ")


def shown(line: str) -> tuple[str, str]:
    """Method and path of a call."""
    found = re.search(r"\$url(/[^\s\"?]*)", re.sub(r"\$\([^)]*\)", "x", line))
    method = re.search(r"-X ([A-Z]+)", line)
    assert found is not None
    return method[1] if method else "POST" if " -d " in line else "GET", found[1]


CALLS = [shown(line) for line in SHOWN.splitlines() if "$url/" in line]


@pytest.mark.parametrize("binding", tuple(bindings(DESCRIPTORS)), ids=lambda each: f"{each.verb} {each.template}")
def test_the_page_shows_a_call_of_the_route(binding: Binding) -> None:
    """A new annotation without an example ends here."""
    pattern = re.compile(re.sub(r"\\\{[a-z_.\\]+\\\}", "[a-z0-9-]+", re.escape(binding.template)))
    assert [path for verb, path in CALLS if verb == binding.verb and pattern.fullmatch(path)]
