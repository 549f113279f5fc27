"""Pseudo-labels on disk and in object stores: made by any number of processes, stopped and continued at any instant."""

from fastbsn.labelling import caches as caches
from fastbsn.labelling.engine import Labeller
from fastbsn.labelling.generate import generate
from fastbsn.labelling.job import Options
from fastbsn.labelling.records import finish

__all__ = ["Labeller", "Options", "finish", "generate"]
