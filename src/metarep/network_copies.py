"""Copies of networks in which nothing leads back to the original: closures and hooks neither."""

import copy
from collections.abc import Iterable
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Generator, Tensor, nn
from torch.nn.modules import module as torch_module

from metarep.errors import MetarepError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_EVERYWHERE = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


def copied(
    body: nn.Module, instead: dict[int, nn.Module] | None = None, *, apart: bool = False
) -> tuple[nn.Module, dict[int, Any]]:
    """A deep copy of a network, without what compiles or spreads it; and what stands there for each of its modules.

    Trap: a patched forward (``layer.forward = lambda x: old(x).relu()``) or a hook may be a function that holds a layer
    of the original. Copied as they are they would run that one, with its weights; here they hold the copy's.

    Args:
        body: stays as it is.
        instead: by ``id`` of a module, what is to stand for it.
        apart: with parameters of its own. Otherwise they are shared, and so are generators: what draws goes on drawing
            from the same one.

    Raises:
        MetarepError: it cannot be copied, or a function of it holds a parameter, which no copy could replace.
    """
    memo: dict[int, Any] = dict(instead or {})
    for layer in body.modules():
        if not apart:
            memo |= {id(parameter): parameter for parameter in layer._parameters.values() if parameter is not None}
        for value in _within(vars(layer).values()):
            if isinstance(value, Generator) and not apart:
                memo[id(value)] = value
            elif isinstance(value, Tensor) and value.grad_fn is not None:  # a result that a layer has kept
                memo[id(value)] = value.detach()
        for hook in _functions(layer):
            owner = hook if isinstance(hook, FunctionType) else getattr(hook, "__self__", hook)
            if not any(isinstance(value, nn.Module) for value in _within([owner, *_vars(owner)])):
                memo[id(owner)] = owner  # somebody who watches from outside, and goes on watching
    try:
        for layer in reversed(list(body.modules())):
            if (inner := unwrapped(layer)) is not layer:
                memo[id(layer)] = copy.deepcopy(inner, memo)  # the innermost first
        twin = copy.deepcopy(body, memo)  # what the memo holds is not copied
    except (TypeError, RuntimeError) as error:
        raise MetarepError(
            f"{type(body).__name__} cannot be copied, as each thread and each target network needs it: {error}"
        ) from error
    copies = {id(layer): memo[id(layer)] for layer in body.modules() if id(layer) in memo}
    parameters = {id(parameter): memo[id(parameter)] for parameter in body.parameters() if id(parameter) in memo}
    rebind = _Rebinding(copies | parameters, set() if apart else set(parameters))
    for layer in twin.modules():
        for name, value in vars(layer).items():
            if isinstance(value, FunctionType):
                layer.__dict__[name] = rebind(value)
        for hooks in [vars(layer).get(name) or {} for name in _HOOKS]:
            for key, hook in hooks.items():
                hooks[key] = rebind(hook)
    return twin, copies


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside of ``torch.compile`` and ``DataParallel``.

    >>> inner = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(inner)) is inner
    True
    """
    while True:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise MetarepError(
                "DistributedDataParallel waits for passes that are not made here; give the network in it"
            )
        if isinstance(module, nn.DataParallel):
            module = module.module
        elif isinstance(inner := module._modules.get("_orig_mod"), nn.Module):  # torch.compile's
            module = inner
        else:
            return module


def patched(layer: nn.Module) -> bool:
    """Whether calling it is more than its class's forward: somebody listens, or has put another forward there."""
    own = any(vars(layer).get(name) for name in _HOOKS) or "forward" in vars(layer)
    return own or any(getattr(torch_module, name, None) for name in _EVERYWHERE)


class _Rebinding:
    """Functions that hold modules, as functions that hold their copies.

    Args:
        copies: by ``id`` of a module or parameter.
        shared: the ``id`` of each parameter that copy and original share.
    """

    def __init__(self, copies: dict[int, Any], shared: set[int]) -> None:
        self.copies, self.shared, self.done = copies, shared, dict[int, Any]()

    def __call__(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Tensor) and id(value) in self.shared:
            raise MetarepError(
                f"a function in the network holds a parameter of shape {tuple(value.shape)}, where inner steps could "
                "not move it; let it ask a module for it"
            )
        if isinstance(value, nn.Module | Tensor):
            return self.copies.get(id(value), value)
        if isinstance(value, MethodType):
            owner = self(value.__self__)
            if owner is value.__self__:
                return value
            return MethodType(value.__func__, owner) if isinstance(owner, type(value.__self__)) else owner.forward
        return self._function(value) if isinstance(value, FunctionType) else value

    def _function(self, function: FunctionType) -> FunctionType:
        if id(function) in self.done:
            return self.done[id(function)]
        self.done[id(function)] = function  # one that holds itself
        cells = function.__closure__ or ()
        inside = [_content(cell) for cell in cells]
        defaults, named = function.__defaults__, function.__kwdefaults__
        new = [self(value) for value in inside]
        new_defaults = None if defaults is None else tuple(self(value) for value in defaults)
        new_named = None if named is None else {name: self(value) for name, value in named.items()}
        before, after = [*inside, *(defaults or ()), *(named or {}).values()], [*new, *(new_defaults or ())]
        if all(one is other for one, other in zip(before, [*after, *(new_named or {}).values()], strict=True)):
            return function
        own = tuple(
            cell if one is other else CellType(other) for cell, one, other in zip(cells, inside, new, strict=True)
        )
        other = FunctionType(function.__code__, function.__globals__, function.__name__, new_defaults, own)
        other.__kwdefaults__ = new_named
        other.__dict__.update(function.__dict__)
        self.done[id(function)] = other
        return other


def _content(cell: CellType) -> Any:  # noqa: ANN401
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _vars(owner: object) -> Iterable[Any]:
    return vars(owner).values() if hasattr(owner, "__dict__") else ()


def _functions(layer: nn.Module) -> list[Any]:
    hooks = [hook for name in _HOOKS for hook in (vars(layer).get(name) or {}).values()]
    return [*hooks, *([vars(layer)["forward"]] if "forward" in vars(layer) else [])]


def _within(values: Iterable[Any]) -> Iterable[Any]:
    """These, and what is in those that are lists, tuples or dictionaries."""
    for value in values:
        yield value
        if isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
