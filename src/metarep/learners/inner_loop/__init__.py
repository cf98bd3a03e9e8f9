"""The inner loop: gradient steps on a task's support set, the query loss after them, and the meta-gradient."""

from metarep.learners.inner_loop.adam import Adam
from metarep.learners.inner_loop.adaptation import Adapted, adapt_tasks, query_logits
from metarep.learners.inner_loop.checks import check_settings, refuse_idle_steps
from metarep.learners.inner_loop.head import Head, HeadKind, TaskHead, refuse_missing_classes
from metarep.learners.inner_loop.head_only import descend_head
from metarep.learners.inner_loop.meta_loss import meta_loss
from metarep.learners.inner_loop.rates import RateKind, Rates
from metarep.learners.inner_loop.start import Start
from metarep.learners.inner_loop.task import InnerLoop, Task

__all__ = [
    "Adam",
    "Adapted",
    "Head",
    "HeadKind",
    "InnerLoop",
    "RateKind",
    "Rates",
    "Start",
    "Task",
    "TaskHead",
    "adapt_tasks",
    "check_settings",
    "descend_head",
    "meta_loss",
    "query_logits",
    "refuse_idle_steps",
    "refuse_missing_classes",
]
