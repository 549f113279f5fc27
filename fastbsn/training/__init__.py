"""Training: teacher, student, and both in one call."""

from fastbsn.training.fit import fit
from fastbsn.training.imageset import ImageSet
from fastbsn.training.loop import LoopConfig
from fastbsn.training.student import StudentConfig, distill
from fastbsn.training.teacher import TeacherConfig, train_teacher

__all__ = ["ImageSet", "LoopConfig", "StudentConfig", "TeacherConfig", "distill", "fit", "train_teacher"]
