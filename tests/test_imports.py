"""Imports run one way; triton and the extension are reached from few places; importing fastbsn is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Each layer may import the layers above it in this list, and itself.
LAYERS = [
    ("errors",),
    ("ops",),
    ("nets",),
    ("io",),
    ("backends", "camera", "inference"),
    ("evaluation", "training", "denoiser", "export"),
    ("info", "demo", "commands", "__main__"),
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package_files() -> list[tuple[str, Path]]:
    files = sorted(p for p in (ROOT / "fastbsn").rglob("*.py") if "kernels" not in p.relative_to(ROOT).parts)
    assert len(files) > 20
    return [(p.relative_to(ROOT / "fastbsn").parts[0].removesuffix(".py"), p) for p in files]


def test_imports_run_one_way():
    wrong = []
    for layer, path in package_files():
        if layer == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "fastbsn" and len(parts) > 1 and parts[1] in LEVEL and LEVEL[parts[1]] > LEVEL[layer]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_layer():
    assert {layer for layer, _ in package_files()} - {"__init__"} <= LEVEL.keys()


def test_only_kernels_import_triton():
    users = [p for _, p in package_files() if any(n.split(".")[0] == "triton" for n in imports(p))]
    assert not users, users


def test_only_ops_and_backends_reach_kernels_and_extension():
    def reaches(path: Path) -> bool:
        return any(n.startswith(("fastbsn.kernels", "fastbsn._C")) for n in imports(path))

    users = {layer for layer, path in package_files() if reaches(path)}
    assert users <= {"ops", "backends"}, users


def test_import_is_cheap_and_lazy():
    code = "import sys, fastbsn; print([m for m in ('torch', 'triton', 'cv2', 'skimage', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"
    assert not result.stderr


def test_no_pickle_anywhere():
    words = ("torch.load(", "pickle.load", "allow_pickle=True", "import pickle")
    files = [p for folder in ("fastbsn", "kernels", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    wrong = [(p.name, w) for p in files for w in words if w in p.read_text()]
    assert not wrong, wrong


def test_files_are_short():
    folders = ("fastbsn", "kernels", "csrc", "benchmarks", "tests")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in (".py", ".cu", ".cuh", ".cpp", ".h")]
    lengths = {p.relative_to(ROOT): len(p.read_text().splitlines()) for p in files}
    assert not {p: n for p, n in lengths.items() if n > 400}
    assert sorted(lengths.values())[len(lengths) // 2] <= 200
