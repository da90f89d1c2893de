"""The compiled build: asked for or not, and what it is made of. That it does the same is held by `make compiled`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import sidecar
from hatch_build import CompiledHook
from sidecar import framing

ROOT = Path(__file__).parent.parent.parent
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]
HOOK: dict[str, Any] = CONFIG["hooks"]["custom"]


def hook() -> CompiledHook:
    """As hatchling makes it for a wheel."""
    nothing: Any = None
    return CompiledHook(str(ROOT), HOOK, nothing, nothing, "", "wheel")


def test_what_is_compiled_are_modules_that_exist() -> None:
    """Each once, and none of them generated."""
    modules = HOOK["modules"]
    assert len(set(modules)) == len(modules)
    assert all((ROOT / name).is_file() and "/gen/" not in name for name in modules)


def test_a_wheel_is_pure_unless_it_is_asked_to_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, no mypy; an editable install never is compiled."""
    monkeypatch.delenv("CONNECTORS_COMPILE", raising=False)
    untouched: dict[str, Any] = {"force_include": {}, "pure_python": True}
    hook().initialize("standard", untouched)
    assert untouched == {"force_include": {}, "pure_python": True}
    assert hook().dependencies() == []
    monkeypatch.setenv("CONNECTORS_COMPILE", "1")
    hook().initialize("editable", untouched)
    assert untouched["pure_python"]
    assert hook().dependencies() == HOOK["requires"]


def test_the_sidecar_knows_whether_it_runs_compiled() -> None:
    """What it logs and measures is what the import system found."""
    assert sidecar.compiled() is not framing.__file__.endswith(".py")


def test_a_sidecars_process_loads_nothing_for_colours() -> None:
    """Structlog would load rich where it is installed, which is 6 MiB beside every app."""
    run = "import runpy, sys\ntry: runpy.run_module('sidecar', run_name='__main__')\nfinally: "
    code = run + "print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "'sidecar.main'" in done.stderr
    assert "rich.console" not in done.stderr
