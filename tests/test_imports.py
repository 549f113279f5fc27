"""Imports run one way; triton and the extension are reached from few places; importing fastbsn is cheap."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each layer may import the layers above it in this list, and itself.
LAYERS = [
    ("errors", "names", "signals", "version"),
    ("pixels",),
    ("ops",),
    ("nets",),
    ("int8", "io", "models"),
    ("export",),
    ("backends", "camera", "inference"),
    ("evaluation", "training"),
    ("labelling",),
    ("scale",),
    ("denoiser",),
    ("report",),
    ("app", "info", "demo", "commands", "__main__"),
]
EXTENSION = "fastbsn._C"  # compiled
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth, by `import` or by `import_module("...")`; "a.b." is any in a.b.
    Relative ones are those of kernels/."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, (node.level * "fastbsn.kernels", node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"fastbsn(\.\w+)+\.?", node.value):
            found.add(node.value)
    return found


def package_files() -> list[tuple[str, Path]]:
    files = sorted(p for p in (ROOT / "fastbsn").rglob("*.py") if "kernels" not in p.relative_to(ROOT).parts)
    assert len(files) > 20
    return [(p.relative_to(ROOT / "fastbsn").parts[0].removesuffix(".py"), p) for p in files]


def module_name(path: Path) -> str:
    """Dotted name of a file of the package; kernels/ is installed as fastbsn.kernels."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "fastbsn" else ("fastbsn", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> modules of the package whose names it imports, or takes names from."""

    def modules(name: str) -> set[str]:
        if name.endswith("."):
            return {m for m in files if m.startswith(name)}
        return {next((m for m in (name, name.rpartition(".")[0]) if m in files), "")} - {""}

    return {m: set().union(*map(modules, imports(path) - {EXTENSION})) - {m} for m, path in files.items()}


def cycle(graph: dict[str, set[str]]) -> tuple[str, ...]:
    """The modules of a cycle, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return ()


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


def test_no_module_imports_itself_by_way_of_others():
    kernels = [p for p in (ROOT / "kernels").glob("*.py") if p.name != "__init__.py"]
    graph = module_graph({module_name(p): p for p in [*(p for _, p in package_files()), *kernels]})
    assert {"fastbsn.kernels.wgrad", "fastbsn.kernels.slots"} <= graph["fastbsn.kernels.mdc_backward"]
    assert "fastbsn.training.labels" in graph["fastbsn.training.stages"] and "fastbsn.denoiser" in graph["fastbsn"]
    assert not cycle(graph)


@pytest.mark.parametrize(
    "text",
    [
        "from fastbsn.p import b",
        "from fastbsn.p.b import f",
        "def f():\n    import fastbsn.p.b",
        "import_module('fastbsn.p.b')",
        "import_module(f'fastbsn.p.{name}')",
    ],
)
def test_a_cycle_is_seen_however_it_is_written(text, tmp_path):
    files = {"fastbsn.a": tmp_path / "a.py", "fastbsn.p.b": tmp_path / "b.py"}
    files["fastbsn.a"].write_text(text)
    files["fastbsn.p.b"].write_text("from fastbsn.a import g")
    assert set(cycle(module_graph(files))) == {"fastbsn.a", "fastbsn.p.b"}


def test_every_module_has_a_layer():
    assert {layer for layer, _ in package_files()} - {"__init__"} <= LEVEL.keys()


def test_only_kernels_import_triton():
    users = [p for _, p in package_files() if any(n.split(".")[0] == "triton" for n in imports(p))]
    assert not users, users


def test_only_ops_and_backends_reach_kernels_and_extension():
    def reaches(path: Path) -> bool:  # but for the tuner, which `fastbsn tune` starts
        return any(n.startswith(("fastbsn.kernels", EXTENSION)) for n in imports(path) - {"fastbsn.kernels.tune"})

    users = {layer for layer, path in package_files() if reaches(path)}
    assert users <= {"ops", "backends"}, users


def test_kernels_compile_without_torch():
    """What aot.py imports, where importing torch fails."""
    code = "import sys; sys.modules['torch'] = None; import fastbsn.kernels.aot, fastbsn.kernels.shipped"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_kernels_need_nothing_of_the_operations():
    files = [p for p in (ROOT / "kernels").glob("*.py") if p.name != "__init__.py"]
    names = {n for p in files for n in imports(p) if n.startswith("fastbsn") and not n.startswith("fastbsn.kernels")}
    assert names and {n.split(".")[1] for n in names} <= {"errors", "io"}


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
    assert sorted(lengths.values())[len(lengths) // 2] <= 120
