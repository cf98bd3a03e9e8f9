"""Checks of the settings of gradient descent that exclude each other."""

from metarep.errors import MetarepError, one_of


def check_settings(
    scope: str, head: str, rates: str, adaptation: str, minibatch: int, steps: int, test_steps: int | None
) -> None:
    """Raise unless these settings of :class:`metarep.learners.GradientDescent` go together.

    Args:
        scope, head, rates, adaptation, minibatch, steps, test_steps: see there.

    Raises:
        MetarepError: a number is out of range, or two settings exclude each other. The message says why.
    """
    one_of("adaptation", adaptation, ("sgd", "adam"))
    for name, value in (("steps", steps), ("test_steps", test_steps), ("minibatch", minibatch)):
        if value is not None and not 0 <= value <= 10_000:  # a damaged file may ask for 10**9
            raise MetarepError(f"{name} must be from 0 to 10,000, not {value}")
    if adaptation == "adam" and (rates != "fixed" or scope == "head"):
        raise MetarepError(
            f"adaptation=adam does not work with rates={rates} and scope={scope}: it has a single rate and keeps a "
            "state for every weight from task to task; it goes with rates=fixed and a scope that adapts the body"
        )
    if minibatch and scope == "head":
        raise MetarepError(
            f"minibatch={minibatch} needs a scope that adapts the body, not scope=head; take minibatch=0"
        )
    if rates == "parameter" and head == "shared":
        raise MetarepError(
            "rates=parameter does not work with head=shared: one rate for each weight needs rows that are the same "
            "in every task; take head=rows"
        )
    if head == "cosine" and scope != "head":
        raise MetarepError(
            f"head=cosine compares features of length 1, which are computed once, so it needs scope=head; with "
            f"scope={scope} take head=prototype"
        )
    for number in (steps, steps if test_steps is None else test_steps):
        refuse_idle_steps(scope, head, number)


def refuse_idle_steps(scope: str, head: str, steps: int) -> None:
    """Raise if so few inner steps would not change the body, although it is in the scope.

    Args:
        scope, head, steps: see :class:`metarep.learners.GradientDescent`.

    Raises:
        MetarepError: the head is ``shared`` and there are fewer than two steps.
    """
    if head == "shared" and scope != "head" and steps < 2:
        raise MetarepError(
            f"steps={steps} is too few for head=shared: with one shared row every class starts from the same "
            "logits, so in the first step the gradient of the features is zero and the body does not change; "
            "take steps=2 or more, or head=rows"
        )
