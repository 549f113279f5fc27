"""The bundled models, and where a model's name leads."""

from __future__ import annotations

from pathlib import Path

from fastbsn.errors import InputError

WEIGHTS = Path(__file__).parent / "weights"
STUDENT_FILE = "student.safetensors"  # in a folder of `Denoiser.save_pretrained`


def list_models() -> list[str]:
    """Names of the bundled models, for `Denoiser.from_pretrained`.

    >>> import fastbsn
    >>> "gray-awgn" in fastbsn.list_models()
    True
    """
    return sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))


def find_model(name_or_path: str | Path) -> Path:
    """The weights file of a bundled name, a .safetensors file or a folder of `Denoiser.save_pretrained`.

    Raises:
        InputError: none of the three; the message lists the names.
    """
    path = Path(name_or_path)
    if str(name_or_path) in list_models():
        return WEIGHTS / f"{name_or_path}.safetensors"
    path = path / STUDENT_FILE if path.is_dir() else path
    if not path.is_file():
        names = ", ".join(list_models()) or "none"
        raise InputError(
            f"{name_or_path}: not a bundled model ({names}), a .safetensors file, or a folder with {STUDENT_FILE}; check the name"
        )
    return path
