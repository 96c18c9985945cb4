"""Change how scores flow back through a network for the time of one pass; the network itself is never touched.

Each call that reaches PyTorch while the network runs is seen here, whether a module or a plain function makes it and
however often the module is used, and a method may answer it with the same values and a backward rule of its own. What
can't be seen (scripted, compiled or checkpointed parts) stays behind in the graph, is found there, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pellucid.errors import expected

Rule = Callable[..., tuple[Tensor | None, ...]]  # what flows into the output, then the inputs: what flows to each

ACTIVATIONS = frozenset({
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "prelu", "relu",
    "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh", "threshold", "clamp", "clamp_min", "clamp_max",
    "clip",
})  # fmt: skip
MOVES = (
    "AccumulateGrad", "AdaptiveMaxPool", "Alias", "AsStrided", "Cat", "Clone", "ConstantPad", "Copy", "Expand", "Flip",
    "Index", "MaxPool", "Narrow", "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad", "Repeat",
    "ReplicationPad", "Reshape", "Roll", "Select", "Slice", "Split", "Squeeze", "Stack", "TBackward", "ToCopy",
    "Transpose", "Unbind", "Unflatten", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
)  # fmt: skip
_PLACES = {"input": 0, "query": 0, "other": 1, "key": 1, "value": 2, "attn_mask": 3}  # of arguments that are named
_HIDDEN = ("DifferentiableGraph", "CompiledFunction", "CheckpointFunction", "jit")


@dataclass(frozen=True)
class Call:
    """One call that a network makes: the function's name without what marks it as in place, and what it is given."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]

    def given(self, place: int, name: str, default: object = None) -> Any:
        """The argument at a place or of a name."""
        return self.args[place] if place < len(self.args) else self.options.get(name, default)

    @property
    def moving(self) -> list[int]:
        """The places of the positional arguments that depend on the image."""
        return [i for i, each in enumerate(self.args) if isinstance(each, Tensor) and each.requires_grad]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value with other tensors in the places that depend on the image."""
        args = list(self.args)
        for place, value in zip(self.moving, inputs, strict=True):
            args[place] = value
        return cast(Tensor, self.function(*args, **self.options))

    def ruled(self, rule: Rule) -> Tensor:
        """The call's own value, through which scores flow back by `rule(flow, *inputs)`."""
        return replaced(self, rule, *(self.args[i] for i in self.moving))


Answer = Callable[[Call], Any]  # a call's output with a rule of the method's own, or None to leave it


class Rewritten(nn.Module):
    """A network whose calls are answered by `begin()`, afresh for each pass.

    Arguments:
        model: the network, or a part of it; it is only called.
        begin: gives the function that answers each call of one pass.
        refused: whether a step of the backward graph, by its name, breaks the method when it is left there.
        method: the method's name, for errors.

    Raises:
        InputError: a step remains that the method has no rule for, or that can't be seen; it is named.
    """

    def __init__(
        self, model: Callable[[Tensor], Any], begin: Callable[[], Answer], refused: Callable[[str], bool], method: str
    ) -> None:
        super().__init__()
        self._model = model
        self._begin = begin
        self._refused = refused
        self._method = method

    def forward(self, images: Tensor) -> Any:
        """The network's output for images (M, C, *S), with the method's rules behind it."""
        with _Seen(self._begin()):
            outputs = self._model(images)
        steps = set(_steps(_tensors(outputs)))
        left = sorted(name for name in steps if self._refused(name) or any(mark in name for mark in _HIDDEN))
        if left:
            raise expected(
                "model",
                f"steps that {self._method!r} has rules for",
                ", ".join(name.removesuffix("0").removesuffix("Backward") for name in left),
                do="Use eager PyTorch modules or functions there, or a method of another family.",
            )
        return outputs


class _Seen(TorchFunctionMode):
    """Shows every call to `answer`; what is called in place is written in place."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if not torch.is_grad_enabled() or options.get("out") is not None:
            return func(*args, **options)
        call, in_place = _call(func, args, options)
        hidden = any(isinstance(each, Tensor) and each.requires_grad for each in call.options.values())
        if not call.moving or hidden:  # a rule would lose what flows to a named argument
            return func(*args, **options)
        out = self._answer(call)
        if out is None:
            return func(*args, **options)
        return args[0].copy_(out) if in_place else out


def _call(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Call, bool]:
    name: str = getattr(func, "__name__", "")
    bare = name.strip("_")
    for given, place in _PLACES.items():
        if (
            place == len(args)
            and isinstance(options.get(given), Tensor)
            and (given == "input" or "input" not in options)
        ):
            args = (*args, options[given])
            options = {key: value for key, value in options.items() if key != given}
    if name.startswith("__i") and hasattr(Tensor, f"__{bare[1:]}__"):
        bare, in_place = bare[1:], True
        func = getattr(Tensor, f"__{bare}__")
    elif name.endswith("_") and not name.endswith("__"):
        in_place = True
        func = getattr(Tensor, bare, None) or getattr(functional, bare, None) or func
    else:
        in_place = bool(options.get("inplace"))
        options = {key: value for key, value in options.items() if key != "inplace"}
        if name.startswith("__r") and hasattr(Tensor, f"__{bare[1:]}__"):
            bare = bare[1:]
    if in_place and args and isinstance(args[0], Tensor) and args[0].requires_grad:
        args = (args[0].clone(), *args[1:])  # rules look at the input as it was
    return Call(bare, func, args, options), in_place


class _Replaced(torch.autograd.Function):
    """A function's value with another way back."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], rule: Rule, *inputs: Tensor) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *flows: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.rule(flows[0], *ctx.saved_tensors)


def replaced(function: Callable[..., Tensor], rule: Rule, *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, a new tensor, through which scores flow back by `rule(flow, *inputs)`.

    >>> x = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> replaced(torch.abs, lambda flow, x: (flow * 10,), x).sum().backward()
    >>> x.grad
    tensor([10., 10.])
    """
    return cast(Tensor, _Replaced.apply(function, rule, *inputs))  # type: ignore[no-untyped-call]


def pulled_back(function: Callable[..., Tensor], inputs: Iterable[Tensor], flow: Tensor) -> tuple[Tensor, ...]:
    """The vector-Jacobian product: `flow` carried from the function's output to each of its inputs.

    >>> pulled_back(torch.square, [torch.tensor([3.0])], torch.tensor([2.0]))
    (tensor([12.]),)
    """
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in inputs]
        return torch.autograd.grad(function(*leaves), leaves, flow)


def moves_only(step: str) -> bool:
    """Whether a step of the backward graph only moves values about, or is a rule of ours."""
    return step.startswith((*MOVES, _Replaced.__name__))


def _tensors(outputs: object) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        for each in outputs.values():
            yield from _tensors(each)
    elif isinstance(outputs, list | tuple):
        for each in outputs:
            yield from _tensors(each)


def _steps(outputs: Iterable[Tensor]) -> Iterator[str]:
    """Names of the steps that lead to the outputs."""
    waiting = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node.name().rpartition("::")[2]
        before = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= before
        waiting += before
