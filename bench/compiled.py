"""The compiled build, unpacked under .bench/compiled/, so that it can be tested and measured beside the sources.

    make compiled                        # build it as a user would, and run the sidecar's tests on it; needs a C compiler
    python -m bench.compiled             # build only; afterwards `make bench` measures it as `ours-compiled`

What is compiled stands in pyproject.toml, how in hatch_build.py, and why in docs/adr/0010.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bench.sidecar import tools

SUITE = ("tests/sidecar", "tests/inject/test_inject.py", "tests/journeys/test_attacker.py")
ENGINE = "import sidecar; raise SystemExit(not sidecar.compiled())"


def build() -> None:
    """As `CONNECTORS_COMPILE=1 pip install .` does. Raises: CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "-w",
            folder,
            ".",
        ]
        subprocess.run(pip, env={**os.environ, "CONNECTORS_COMPILE": "1"}, check=True, timeout=1200)
        wheel = next(Path(folder).glob("*.whl"))
        print(wheel.name)
        shutil.rmtree(tools.COMPILED, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tools.COMPILED)


def environment() -> dict[str, str]:
    """In which the compiled copy is what `sidecar` and `connectors_grpc` are; the rest comes from the sources."""
    path = os.pathsep.join([str(tools.COMPILED), str(Path.cwd())])
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compiled", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--test", action="store_true", help="run the sidecar's own tests on it")
    parser.add_argument("tests", nargs="*", default=SUITE, help="which (default: all of the sidecar's)")
    options = parser.parse_args()
    build()
    if not options.test:
        return 0
    subprocess.run([sys.executable, "-c", ENGINE], env=environment(), check=True, timeout=60)
    pytest = [sys.executable, "-m", "pytest", "--import-mode=append", "-p", "no:cacheprovider", *options.tests]
    return subprocess.run(pytest, env=environment(), check=False, timeout=1200).returncode


if __name__ == "__main__":
    sys.exit(main())
