"""An experiment: the sidecar's engine compiled by mypyc, in a copy under .bench/compiled/. Needs a C compiler.

    python -m bench.compiled            # build; afterwards `make bench` measures it as `ours-mypyc`

The sources stay as they are, and nothing compiled is ever imported by the project itself. docs/adr/0010 says what shipping
it would need.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

from bench.sidecar import tools

MODULES = (
    "sidecar/framing.py", "sidecar/door.py", "sidecar/route.py", "sidecar/admission.py", "sidecar/body.py", "sidecar/rewrite.py",
    "sidecar/held.py", "sidecar/leases.py", "sidecar/metrics.py", "sidecar/limits.py", "sidecar/problem.py",
    "sidecar/engine/heads.py", "sidecar/engine/exchange.py", "sidecar/engine/pool.py", "sidecar/engine/upstream.py",
    "sidecar/engine/downstream.py", "connectors_grpc/inject/plan.py", "connectors_grpc/inject/target.py",
)  # fmt: skip
SETUP = """
from setuptools import setup
from mypyc.build import mypycify
modules = mypycify(["--ignore-missing-imports", *{modules!r}], opt_level="3")
setup(name="compiled", packages=[], py_modules=[], ext_modules=modules)
"""


def main() -> int:
    builder = tools.HOME / "mypyc"
    tools.environment(builder, "mypy", "setuptools")
    shutil.rmtree(tools.COMPILED, ignore_errors=True)
    for package in ("sidecar", "connectors_grpc"):
        shutil.copytree(package, tools.COMPILED / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tools.COMPILED / "setup.py").write_text(SETUP.format(modules=MODULES))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(site.getsitepackages())}
    python = str(Path(builder / "bin" / "python"))
    done = subprocess.run(
        [python, "setup.py", "-q", "build_ext", "--inplace"], cwd=tools.COMPILED, env=env, check=False, timeout=600
    )
    if done.returncode:
        shutil.rmtree(tools.COMPILED, ignore_errors=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
