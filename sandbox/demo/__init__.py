"""`make demo`: the main job on real input, from nothing to a table of what happened."""

from sandbox.demo.play import run

__all__ = ["run"]
