"""Packages, kernels/ as fastbsn.kernels, and the CUDA extension fastbsn._C where nvcc is there.

FASTBSN_CUDA   auto (default: build the extension if nvcc is found, go on without it if the build fails) | 0 (never) | 1 (must)
FASTBSN_ARCHS  architectures, "80;86;89;90a;100;120" by default
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
ARCHS = [arch for arch in os.environ.get("FASTBSN_ARCHS", "80;86;89;90a;100;120").replace(",", ";").split(";") if arch]
NVCC_FLAGS = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC,-fvisibility=hidden", "-cudart=static"]


def find_nvcc() -> str | None:
    homes = [Path(os.environ[name]) / "bin" / "nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    homes.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((str(path) for path in homes if path.is_file()), None) or shutil.which("nvcc")


def extensions() -> list[Extension]:
    wish, nvcc, sources = os.environ.get("FASTBSN_CUDA", "auto"), find_nvcc(), sorted((ROOT / "csrc").glob("*.c[pu]*"))
    if wish not in ("auto", "0", "1"):
        sys.exit(f"FASTBSN_CUDA={wish}; expected auto, 0 or 1")
    if wish == "1" and nvcc is None:
        sys.exit(
            "FASTBSN_CUDA=1, but there is no nvcc in CUDA_HOME, CUDA_PATH, /usr/local/cuda or PATH; install the CUDA toolkit or unset it"
        )
    if wish == "0" or nvcc is None:
        print("fastbsn: without the CUDA extension (" + ("FASTBSN_CUDA=0)" if wish == "0" else "no nvcc)"))
        return []
    print(f"fastbsn: with the CUDA extension for sm_{', sm_'.join(ARCHS)} ({nvcc})")
    sources = [str(path.relative_to(ROOT)) for path in sources if path.suffix in (".cpp", ".cu")]
    return [Extension("fastbsn._C", sources, optional=wish == "auto")]


class BuildWithNvcc(build_ext):
    """Every source through nvcc, in parallel where cores allow, rebuilt only when it or its headers changed."""

    def build_extension(self, ext: Extension) -> None:
        import ninja
        import pybind11

        includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_paths()["include"])]
        # With its PTX, which the driver compiles for later GPUs; that of "90a" runs on no other.
        codes = {arch: f"sm_{arch}" if arch[-1].isalpha() else f"[sm_{arch},compute_{arch}]" for arch in ARCHS}
        gencode = [f"'-gencode=arch=compute_{arch},code={code}'" for arch, code in codes.items()]
        archs = ["'-DFASTBSN_ARCHS=\"" + ",".join(ARCHS) + "\"'"]
        build = Path(self.build_temp).resolve() / "csrc"
        build.mkdir(parents=True, exist_ok=True)
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        objects = [build / (Path(source).name + ".o") for source in ext.sources]
        quote = str.maketrans({" ": "$ ", ":": "$:"})
        lines = [
            f"nvcc = {find_nvcc()}",
            f"flags = {' '.join(NVCC_FLAGS + includes + gencode + archs)}",
            "rule compile\n  command = $nvcc $flags -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc",
            "rule link\n  command = $nvcc -shared -cudart=static $in -o $out",
            *(
                f"build {str(o).translate(quote)}: compile {str(ROOT / s).translate(quote)}"
                for o, s in zip(objects, ext.sources, strict=True)
            ),
            f"build {str(target).translate(quote)}: link {' '.join(str(o).translate(quote) for o in objects)}",
        ]
        (build / "build.ninja").write_text("\n".join(lines) + "\n")
        ninja_program = str(Path(ninja.BIN_DIR) / "ninja")
        try:
            subprocess.run([ninja_program, "-C", str(build), "-j", os.environ.get("MAX_JOBS", str(os.cpu_count()))], check=True)
        except subprocess.CalledProcessError as error:
            from setuptools.errors import CompileError

            raise CompileError(f"nvcc failed with exit code {error.returncode}; FASTBSN_CUDA=0 installs without the extension") from error


if __name__ == "__main__":  # benchmarks take find_nvcc from here
    setup(
        packages=[*find_packages(include=["fastbsn", "fastbsn.*"]), "fastbsn.kernels"],
        package_dir={"fastbsn.kernels": "kernels"},
        package_data={"fastbsn": ["py.typed", "weights/*.safetensors", "report/templates/*.html"], "fastbsn.kernels": ["*.json"]},
        include_package_data=False,
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildWithNvcc},
    )
