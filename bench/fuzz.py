"""Run the coverage-guided fuzzer of the engine for a bounded time, in an environment of its own under .bench/: `make fuzz`.

    python -m bench.fuzz [seconds]

What it finds is written to .bench/findings/; the corpus grows in .bench/corpus/. Exit status 1 if something was found.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

from bench.sidecar import tools

CORPUS, FINDINGS = tools.HOME / "corpus", tools.HOME / "findings"


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    tools.environment(tools.FUZZ, "atheris")
    FINDINGS.mkdir(parents=True, exist_ok=True)
    packages = os.pathsep.join([str(Path.cwd()), *site.getsitepackages()])
    fuzzer = [str(tools.FUZZ / "bin" / "python"), "-m", "tests.fuzz.fuzz_wire"]
    env = {**os.environ, "PYTHONPATH": packages}
    subprocess.run([*fuzzer, "--seeds", str(CORPUS)], env=env, check=True, timeout=60, stderr=subprocess.DEVNULL)
    options = [
        f"-max_total_time={seconds}",
        "-max_len=1500",
        "-len_control=10",
        "-timeout=10",
        f"-artifact_prefix={FINDINGS}/",
    ]
    options += ["-print_final_stats=1", "-verbosity=1"]
    done = subprocess.run([*fuzzer, *options, str(CORPUS)], env=env, check=False, timeout=seconds + 120)
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
