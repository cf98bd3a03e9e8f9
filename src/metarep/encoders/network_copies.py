"""Deep copies of networks; closures and hooks in a copy use the layers of the copy, and not those of the original."""

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
    """A deep copy of a network, without ``torch.compile`` and ``DataParallel`` wrappers.

    Trap: a patched forward (``layer.forward = lambda x: old(x).relu()``) or a hook may be a function that holds a layer
    of the original. An ordinary copy of the function would run that layer, with its weights. Here it runs the copy of
    the layer.

    Args:
        body: the network; it is not changed.
        instead: modules to put in the place of others, by the ``id`` of the module they replace.
        apart: give the copy its own parameters and random generators. Otherwise it shares those of ``body``.

    Returns:
        The copy, and the copy of each module by the ``id`` of the original.

    Raises:
        MetarepError: the network cannot be copied, or a function in it holds a parameter, which cannot be replaced.

    >>> body = nn.Sequential(nn.Linear(2, 2))
    >>> copied(body)[0][0].weight is body[0].weight, copied(body, apart=True)[0][0].weight is body[0].weight
    (True, False)
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
                memo[id(owner)] = owner  # an observer outside of the network: the copy calls the same object
    try:
        for layer in reversed(list(body.modules())):
            if (inner := unwrapped(layer)) is not layer:
                memo[id(layer)] = copy.deepcopy(inner, memo)  # the innermost first
        duplicate = copy.deepcopy(body, memo)  # objects in the memo are not copied again
    except (TypeError, RuntimeError) as error:
        raise MetarepError(
            f"{type(body).__name__} cannot be copied, as each thread and each target network needs it: {error}"
        ) from error
    copies = {id(layer): memo[id(layer)] for layer in body.modules() if id(layer) in memo}
    parameters = {id(parameter): memo[id(parameter)] for parameter in body.parameters() if id(parameter) in memo}
    rebind = _Rebinding(copies | parameters, set() if apart else set(parameters))
    for layer in duplicate.modules():
        for name, value in vars(layer).items():
            if isinstance(value, FunctionType):
                layer.__dict__[name] = rebind(value)
        for hooks in [vars(layer).get(name) or {} for name in _HOOKS]:
            for key, hook in hooks.items():
                hooks[key] = rebind(hook)
    return duplicate, copies


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``torch.compile`` and ``DataParallel`` wrappers.

    Raises:
        MetarepError: the network is wrapped in ``DistributedDataParallel``.

    >>> inner = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(inner)) is inner
    True
    """
    while True:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise MetarepError(
                "the network is wrapped in DistributedDataParallel, which waits for backward passes that are not made "
                "here; give the network inside it (its .module)"
            )
        if isinstance(module, nn.DataParallel):
            module = module.module
        elif isinstance(inner := module._modules.get("_orig_mod"), nn.Module):  # torch.compile's
            module = inner
        else:
            return module


def patched(layer: nn.Module) -> bool:
    """Whether calling a layer does more than the forward of its class: it has a hook or a patched forward.

    >>> layer = nn.ReLU()
    >>> hook = layer.register_forward_hook(print)
    >>> patched(layer), patched(nn.ReLU())
    (True, False)
    """
    own = any(vars(layer).get(name) for name in _HOOKS) or "forward" in vars(layer)
    return own or any(getattr(torch_module, name, None) for name in _EVERYWHERE)


class _Rebinding:
    """Turns a function that holds modules into one that holds their copies; other values are returned unchanged.

    Args:
        copies: the copy of each module and parameter, by ``id`` of the original.
        shared: the ``id`` of each parameter that copy and original share.
    """

    def __init__(self, copies: dict[int, Any], shared: set[int]) -> None:
        self.copies, self.shared, self.done = copies, shared, dict[int, Any]()

    def __call__(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Tensor) and id(value) in self.shared:
            raise MetarepError(
                f"a function in the network holds a parameter of shape {tuple(value.shape)}, which inner steps cannot "
                "replace there; let the function read it from a module"
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
        self.done[id(function)] = function  # otherwise a function that refers to itself would recurse without end
        cells = function.__closure__ or ()
        inside = [_content(cell) for cell in cells]
        defaults, named = function.__defaults__, function.__kwdefaults__
        new = [self(value) for value in inside]
        new_defaults = None if defaults is None else tuple(self(value) for value in defaults)
        new_named = None if named is None else {name: self(value) for name, value in named.items()}
        before = [*inside, *(defaults or ()), *(named or {}).values()]
        after = [*new, *(new_defaults or ()), *(new_named or {}).values()]
        if all(one is other for one, other in zip(before, after, strict=True)):
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
    """The value of a closure's cell; None if the cell is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _vars(owner: object) -> Iterable[Any]:
    return vars(owner).values() if hasattr(owner, "__dict__") else ()


def _functions(layer: nn.Module) -> list[Any]:
    """The hooks of a layer, and its patched forward."""
    hooks = [hook for name in _HOOKS for hook in (vars(layer).get(name) or {}).values()]
    return [*hooks, *([vars(layer)["forward"]] if "forward" in vars(layer) else [])]


def _within(values: Iterable[Any]) -> Iterable[Any]:
    """These values, and the items of those that are lists, tuples or dictionaries."""
    for value in values:
        yield value
        if isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
