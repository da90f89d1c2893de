"""Write stubs and OpenAPI document under connectors_grpc/gen from proto/, or check that they are current (`--check`).

protoc writes `from connectors.v1 import ...`; the stubs live inside our package, so that import is rewritten. The google.api
annotations come from the googleapis-common-protos wheel: linked into .venv/googleapis for buf, never committed.
"""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import grpc_tools
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from connectors_grpc.http import openapi

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "connectors_grpc" / "gen"
DESCRIPTOR_SET = "connectors.binpb"
BUF_DEPENDENCY = ROOT / ".venv" / "googleapis"
GOOGLE = ("google/api/annotations.proto", "google/api/http.proto", "google/api/field_behavior.proto")
SERVICES = ("TenantService", "IntegrationService", "CredentialService", "ProxyService", "AccessService")
EXTENSIONS = (annotations_pb2, field_behavior_pb2)  # imported so that options with them can be read
IMPORTS = ((r"^from connectors\.v1 import", "from connectors_grpc.gen.connectors.v1 import"),)
IMPORTS += ((r"^import connectors\.v1\.", "import connectors_grpc.gen.connectors.v1."),)
IMPORTS += ((r"(?<![\w.])_?connectors\.v1\.(\w+_pb2)", r"connectors_grpc.gen.connectors.v1.\1"),)


def google_protos() -> Path:
    """Where the wheel keeps `google/api/annotations.proto`."""
    spec = find_spec("google.api")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))).parent.parent


def provide_for_buf() -> None:
    """Copy what buf.yaml names as a module of its own."""
    for name in GOOGLE:
        target = BUF_DEPENDENCY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(google_protos() / name, target)


def generate(out: Path) -> None:
    """Run protoc into `out`, then point the imports at our package."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    bin_dir = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{google_protos()}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        f"--descriptor_set_out={out / DESCRIPTOR_SET}",
        "--include_imports",
        "--include_source_info",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    files = FileDescriptorSet.FromString((out / DESCRIPTOR_SET).read_bytes())
    (out / DESCRIPTOR_SET).unlink()
    document = openapi.document(files, [f"connectors.v1.{name}" for name in SERVICES])
    (out / openapi.FILE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for path in [*out.rglob("*.py"), *out.rglob("*.pyi")]:
        text = path.read_text()
        for pattern, replacement in IMPORTS:
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        path.write_text(text)
    for folder in (out, out / "connectors", out / "connectors" / "v1"):
        (folder / "__init__.py").write_text('"""Generated from proto/ by scripts/gen.py; not edited."""\n')


def differing(fresh: Path, committed: Path) -> list[str]:
    """Names that are missing on either side or differ."""
    names = {
        str(path.relative_to(root))
        for root in (fresh, committed)
        for path in root.rglob("*")
        if path.suffix in (".py", ".pyi", ".json")
    }
    return sorted(
        name
        for name in names
        if not ((fresh / name).exists() and (committed / name).exists())
        or not filecmp.cmp(fresh / name, committed / name, shallow=False)
    )


def main() -> None:
    """Generate, or compare."""
    provide_for_buf()
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        if "--check" in sys.argv[1:]:
            stale = differing(Path(scratch), GEN)
            if stale:
                raise SystemExit("stale, run `make gen`: " + ", ".join(stale))
            return
        shutil.rmtree(GEN, ignore_errors=True)
        shutil.copytree(scratch, GEN)


if __name__ == "__main__":
    main()
