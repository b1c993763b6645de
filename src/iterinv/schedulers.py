"""The older name of :mod:`iterinv.diffusers_schedulers`, which saved pipelines may hold."""

from iterinv.diffusers_schedulers import BDIAInverseScheduler, BDIAScheduler, SchedulerMixin

__all__ = ["BDIAInverseScheduler", "BDIAScheduler", "SchedulerMixin"]
