"""Training: teacher, student, and both in one call."""

from fastbsn.training.imageset import ImageSet
from fastbsn.training.loop import Callback, LoopConfig, Progress, Trained
from fastbsn.training.stages import fit
from fastbsn.training.student import StudentConfig, distill
from fastbsn.training.teacher import TeacherConfig, train_teacher
from fastbsn.training.variety import Variety

__all__ = [
    "Callback",
    "ImageSet",
    "LoopConfig",
    "Progress",
    "StudentConfig",
    "TeacherConfig",
    "Trained",
    "distill",
    "fit",
    "Variety",
    "train_teacher",
]
