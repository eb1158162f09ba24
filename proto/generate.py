"""Generate the Python stubs and their types: `python proto/generate.py TARGET_FOLDER`.

Run it with the environment of the dependency group `proto` (`make proto` does).
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def main() -> int:
    """Write the stubs of every .proto file to the target folder; return protoc's exit status."""
    target = sys.argv[1]
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    outputs = [f"--python_out={target}", f"--mypy_out=quiet:{target}"]
    services = [path for path in sources if "service " in (HERE / path).read_text()]
    bin_folder = Path(sys.executable).parent  # has the plug-ins, and need not be on PATH
    plugins = [
        f"--plugin={bin_folder / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    includes = ["protoc", f"-I{HERE}", f"-I{well_known}", *plugins]
    status: int = protoc.main([*includes, *outputs, *sources])
    if status == 0:
        outputs = [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]
        status = protoc.main([*includes, *outputs, *services])
    return status


if __name__ == "__main__":
    sys.exit(main())
