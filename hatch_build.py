"""Compiles the sidecar's hot path by mypyc while a wheel is built, if CONNECTORS_COMPILE=1. Without, the wheel is pure Python.

The sources stay in the wheel beside what was made of them, and are what runs where the compiled file does not fit. What is
compiled stands in pyproject.toml; docs/adr/0010 says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SETUP = """
from setuptools import setup
from mypyc.build import mypycify
made = mypycify(["--config-file=", "--ignore-missing-imports", *{modules!r}], opt_level="3", group_name="connectors_sidecar")
setup(name="compiled", packages=[], py_modules=[], ext_modules=made)
"""


class CompiledHook(BuildHookInterface[Any]):
    """Needs a C compiler, and Python's headers."""

    PLUGIN_NAME = "custom"

    def wanted(self) -> bool:
        """An editable install runs the sources."""
        return os.environ.get("CONNECTORS_COMPILE", "0") == "1" and self.target_name == "wheel"

    def dependencies(self) -> list[str]:
        """For the build alone."""
        return list(self.config["requires"]) if self.wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile a copy, and put what came of it into the wheel."""
        if not self.wanted() or version == "editable":
            return
        self._work = tempfile.TemporaryDirectory(prefix="connectors-compile-")
        work, out = Path(self._work.name, "sources"), Path(self._work.name, "made")
        for package in ("sidecar", "connectors_grpc"):
            shutil.copytree(Path(self.root, package), work / package, ignore=shutil.ignore_patterns("__pycache__"))
        (work / "setup.py").write_text(SETUP.format(modules=list(self.config["modules"])))
        subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(out)], cwd=work, check=True, timeout=900
        )
        made = {str(path): path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        build_data["force_include"].update(made)
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """Clean up."""
        if hasattr(self, "_work"):
            self._work.cleanup()
