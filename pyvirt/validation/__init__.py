"""The validation experiments by id: what ``pyvirt validate`` runs.

An experiment compares what pyvirt computes with an oracle that pyvirt did not write.
Importing this package loads no experiment; `run` and `experiments` do.
"""

from pyvirt.validation.registry import Context, Experiment, Outcome, experiments, run, select

__all__ = ["Context", "Experiment", "Outcome", "experiments", "run", "select"]
