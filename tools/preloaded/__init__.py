r"""Fresh processes without the wait: forks of an interpreter that imported one thing.

An import of torch takes two seconds of a processor, and some tests need a process of
their own thirty times. `Preloaded("torch")` starts one interpreter, which imports
torch and does nothing else; each `start` forks it. What is forked has never run a line
of ours: it has its own memory and its own end, by a signal as by an exit. It differs
from `python script.py` in what is imported already and in the seed of string hashes,
which all forks share; a test that rests on those starts an interpreter of its own.
"""

from preloaded.client import CLOSED, Preloaded, Process, preloaded

__all__ = ["CLOSED", "Preloaded", "Process", "preloaded"]
