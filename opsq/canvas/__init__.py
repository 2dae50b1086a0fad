"""Workflows: calls of tasks as data, and what is made of them. Celery's `celery.canvas`."""

from opsq.canvas.chains import chain as chain
from opsq.canvas.chords import chord as chord
from opsq.canvas.groups import group as group
from opsq.canvas.maps import chunks as chunks
from opsq.canvas.maps import xmap as xmap
from opsq.canvas.maps import xstarmap as xstarmap
from opsq.canvas.signatures import Signature as Signature
from opsq.canvas.signatures import maybe_signature as maybe_signature
from opsq.canvas.signatures import maybe_subtask as maybe_subtask
from opsq.canvas.signatures import signature as signature
from opsq.canvas.signatures import subtask as subtask
from opsq.canvas.stamping import StampingVisitor as StampingVisitor

#: Celery's own names for the classes.
_chain, _chord = chain, chord

__all__ = [
    *("Signature", "StampingVisitor", "chain", "chord", "chunks", "group", "maybe_signature", "maybe_subtask"),
    *("signature", "subtask", "xmap", "xstarmap"),
]
