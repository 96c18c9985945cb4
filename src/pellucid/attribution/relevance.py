"""Layer-wise relevance propagation: the score is shared out, layer by layer, among what each layer saw.

Its rules are those of `relevance_rules.py`. `gradient_of` and the shapes are those of `gradient.py`; a map is
(B, T, *S).

What isn't a convolution or a linear layer is treated alike under every rule: activations and batch norm pass relevance
on; a batch norm that follows a convolution or a linear layer is folded into it first; sums, residual additions, average
pools and products with constants share by proportion; maximum pools give all to the largest value. Attention, gates and
the norms of a sample's own moments follow Achtibat et al. 2024 (AttnLRP): a product of two things that both depend on
the image gives half to each, a softmax what its Taylor expansion says, and a norm's standard deviation is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attribution.asking import Gradients
from pellucid.attribution.capture import gradients
from pellucid.attribution.channels import Channels, over_channels
from pellucid.attribution.families import rewriting
from pellucid.attribution.head import Head
from pellucid.attribution.relevance_rules import (
    Bounds,
    Layer,
    LayerRule,
    alpha_beta_rule,
    bilinear,
    box_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    normalised,
    passed,
    proportional,
    softmax_rule,
    uniform,
    z_plus_rule,
)
from pellucid.attribution.rules import ACTIVATIONS, Answer, Call, Rewritten, moves_only, replaced
from pellucid.attribution.targets import Objective, described
from pellucid.errors import expected

RuleName = Literal["epsilon", "zero", "gamma", "alpha-beta", "z-plus"]
Composite = Literal[
    "epsilon-plus-flat", "epsilon-plus", "epsilon-alpha2-beta1-flat", "epsilon-alpha2-beta1", "epsilon-gamma-box",
    "attn-lrp",
]  # fmt: skip
Rules = tuple[LayerRule, LayerRule, LayerRule]  # of the first layer, convolutions and linear layers

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
PROPORTIONAL = frozenset({
    "add", "sub", "rsub", "mul", "div", "truediv", "true_divide", "neg", "sum", "mean", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate", "norm",
})  # fmt: skip
QUOTIENTS = frozenset({"div", "truediv", "true_divide"})
MATRIX_PRODUCTS = frozenset({"matmul", "mm", "bmm", "einsum"})
NORMS = frozenset({"layer_norm", "group_norm", "instance_norm"})
PASSED = ACTIVATIONS | {"rms_norm", "normalize"}
SELECTS = ("Amax", "MaskedFill", "Max", "Where")
COMPOSITES: dict[str, tuple[str, str, str]] = {
    "epsilon-plus-flat": ("flat", "z-plus", "epsilon"),
    "epsilon-plus": ("z-plus", "z-plus", "epsilon"),
    "epsilon-alpha2-beta1-flat": ("flat", "alpha-beta", "epsilon"),
    "epsilon-alpha2-beta1": ("alpha-beta", "alpha-beta", "epsilon"),
    "epsilon-gamma-box": ("box", "gamma", "epsilon"),
    "attn-lrp": ("gamma", "gamma", "weak gamma"),
}
RULES = ("epsilon", "zero", "gamma", "alpha-beta", "z-plus")


@rewriting(
    "lrp",
    family="relevance",
    source="Bach et al. 2015, section 'Layer-wise relevance'; Montavon et al. 2019; Achtibat et al. 2024, section 3",
)
def lrp(
    model: nn.Module,
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    rule: RuleName | None = None,
    composite: Composite | None = None,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    bounds: Bounds | None = None,
    channels: Channels = "sum",
) -> Tensor:
    """Relevance of each pixel: the score shared out backwards through the network.

    `rule` is one rule for every layer ("alpha-beta" is α = 2, β = 1); without it `composite` gives rules by place. Its
    default is "attn-lrp" for a network that attends, the γ rule with `gamma` in convolutions and a fifth of it in
    linear layers, and "epsilon-plus-flat" for others. `epsilon` ≥ 0 and `gamma` ≥ 0 are those of their rules. `bounds`
    are the lowest and the highest value that a pixel of the normalised image can have, for "epsilon-gamma-box": values,
    or tensors that broadcast to (C, *S); None takes each image's own range in each channel.
    """
    if rule is not None and rule not in RULES:
        raise expected("rule", ", ".join(map(repr, RULES)) + " or None", repr(rule))
    if composite is not None and composite not in COMPOSITES:
        raise expected("composite", " or ".join(map(repr, COMPOSITES)), repr(composite))
    for argument, value in (("epsilon", epsilon), ("gamma", gamma)):
        if value < 0:
            raise expected(argument, "at least 0", value)
    rules: dict[str, LayerRule] = {
        "epsilon": lambda layer, flow, x: epsilon_rule(layer, flow, x, epsilon),
        "zero": lambda layer, flow, x: epsilon_rule(layer, flow, x, 0.0),
        "gamma": lambda layer, flow, x: gamma_rule(layer, flow, x, gamma),
        "weak gamma": lambda layer, flow, x: gamma_rule(layer, flow, x, gamma / 5),
        "alpha-beta": alpha_beta_rule,
        "z-plus": z_plus_rule,
        "flat": flat_rule,
        "box": lambda layer, flow, x: box_rule(layer, flow, x, bounds),
    }

    def chosen(attends: bool) -> Rules:
        names = COMPOSITES[composite or ("attn-lrp" if attends else "epsilon-plus-flat")]
        first, convolution, linear = (rules[name] for name in ((rule,) * 3 if rule else names))
        return first, convolution, linear

    rewritten = _rewritten(nn.Sequential(model, _Score()), chosen, "lrp")
    everyone = torch.arange(len(images), device=images.device)
    return over_channels(gradient_of.through(rewritten)(images, everyone), channels)


def contrastive_relevance(head: Head, activations: Tensor, objective: Objective) -> Tensor:
    """Relevance (T, B, K, *s) at a layer by the z⁺ rule, what speaks for other classes counted against it.

    Of n classes, the explained one starts with relevance 1 and each other with -1 / (n - 1), so that as much speaks
    for as against. A score that is a function of the output starts with its gradient. `head` is the network after the
    layer, whose activations (B, K, *s) these are. Lee et al. 2021.
    """
    everyone = torch.arange(len(activations), device=activations.device)
    leaf = activations.detach().requires_grad_()
    z_plus: Rules = (z_plus_rule,) * 3
    outputs = _rewritten(head.as_written, lambda _: z_plus, "relevance-cam")(leaf)
    scores = objective.scores(outputs, everyone)
    if objective.classes is not None:
        logits = objective.logits(outputs)
        scores = scores - (logits.sum(dim=1, keepdim=True) - scores) / max(1, logits.shape[1] - 1)
    return gradients(scores, leaf)


def _rewritten(model: Callable[[Tensor], Any], rules: Callable[[bool], Rules], method: str) -> Rewritten:
    """The network with relevance flowing back through it; `rules` are told whether it attends."""

    def begin() -> Answer:
        return _Pass(rules)

    return Rewritten(model, begin, lambda step: not moves_only(step) and not step.startswith(SELECTS), method)


class _Score(nn.Module):
    """Where relevance starts: an output's relevance is its value times what the score makes of it."""

    def forward(self, outputs: Any) -> Any:
        if isinstance(outputs, Tensor):
            return replaced(torch.clone, lambda flow, out: (flow * out,), outputs) if outputs.requires_grad else outputs
        if type(outputs) in (tuple, list):
            return type(outputs)(self(each) for each in outputs)
        if type(outputs) is dict:
            return {key: self(each) for key, each in outputs.items()}
        if outputs is None:
            return None
        raise expected("model", "tensors, or tuples, lists and dicts of them, as its output, for 'lrp'",
                       described(outputs))  # fmt: skip


class _Pass:
    """The answers of one pass; it remembers the last layer, lest a batch norm follows."""

    def __init__(self, rules: Callable[[bool], Rules]) -> None:
        self._rules = rules
        self._met: set[str] = set()
        self._begun = False
        self._last: tuple[Tensor, Tensor, Layer, LayerRule] | None = None  # output, input, layer, rule

    def __call__(self, call: Call) -> Any:
        moving = len(call.moving)
        if call.moving == [0]:
            if call.name in CONVOLUTIONS or call.name == "linear":
                return self._layer(call)
            if call.name == "batch_norm":
                return self._batch_norm(call)
            if call.name in PASSED or (call.name == "instance_norm" and not call.given(5, "use_input_stats", True)):
                return call.ruled(passed)
            if call.name in NORMS:
                return call.ruled(normalised(call))
            if call.name == "softmax":
                return call.ruled(softmax_rule(call))
        if call.name == "scaled_dot_product_attention" and not call.given(4, "dropout_p", 0.0):
            return self._attention(call)
        if call.name == "multi_head_attention_forward":
            return self._heads(call)
        if call.name in MATRIX_PRODUCTS and moving == 2:
            self._met.add("attention")
            return call.ruled(bilinear(call))
        if call.name == "mul" and moving == 2:
            return call.ruled(uniform)
        if call.name in QUOTIENTS and moving == 2:  # by a norm of its own: all to what is divided
            return self(replace(call, args=(call.args[0], call.args[1].detach(), *call.args[2:])))
        if call.name in ("mul", "addcmul", *MATRIX_PRODUCTS) and moving == 1:
            return call.ruled(proportional(call))
        if call.name in PROPORTIONAL and (call.moving == [0] or call.name in ("add", "sub", "rsub")):
            return call.ruled(proportional(call))
        return None

    def _ruled_at(self, place: int) -> LayerRule:
        """The rule of a place, which is known when relevance flows back."""
        rules, met = self._rules, self._met  # not self, which holds an output: a cycle through its graph would stay
        return lambda layer, flow, x: rules("attention" in met)[place](layer, flow, x)

    def _layer(self, call: Call) -> Tensor:
        rule = self._ruled_at((2 if call.name == "linear" else 1) if self._begun else 0)
        layer, x, self._begun = Layer.of(call), call.args[0], True
        out = replaced(call, lambda flow, x: (rule(layer, flow, x),), x)
        self._last = None if "transpose" in call.name else (out, x, layer, rule)
        return out

    def _batch_norm(self, call: Call) -> Tensor | None:
        mean, variance, gain, shift = (
            call.given(i, n) for i, n in enumerate(("running_mean", "running_var", "weight", "bias"), start=1)
        )
        if mean is None or call.given(5, "training", False):
            return None  # the batch's own moments
        if self._last is None or self._last[0] is not call.args[0]:
            return call.ruled(passed)
        out, x, layer, rule = self._last
        scale = (variance + call.given(7, "eps", 1e-5)).rsqrt() * (1.0 if gain is None else gain)
        folded = layer.scaled(scale, (0.0 if shift is None else shift) - mean * scale)
        return replaced(lambda _: call(out.detach()), lambda flow, x: (rule(folded, flow, x),), x)

    def _attention(self, call: Call) -> Tensor:
        """Fused attention, step by step."""
        query, key, value = (call.given(i, name) for i, name in enumerate(("query", "key", "value")))
        mask, scale = call.given(3, "attn_mask"), call.given(6, "scale")
        if call.given(7, "enable_gqa", False):
            times = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(times, dim=-3) for each in (key, value))
        if call.given(5, "is_causal", False):
            mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -math.inf)
        logits = self._step(torch.matmul, query, key.mT)
        logits = self._step(torch.mul, logits, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if mask is not None:
            logits = self._step(torch.add, logits, mask)
        return self._step(torch.matmul, self._step(torch.softmax, logits, -1), value)

    def _heads(self, call: Call) -> tuple[Tensor, None] | None:
        """PyTorch's multi-head self-attention, tokens (N, B, K) first, where it isn't asked for its weights."""
        query, key, value, _, heads, weight, bias, more_keys, _, zeros, _, out_weight, out_bias = call.args
        asked = call.options
        masked = asked["key_padding_mask"] is not None or (asked["attn_mask"] is not None and not asked["is_causal"])
        if not (query is key is value) or more_keys is not None or zeros or asked["need_weights"] or masked:
            return None
        projected = self._step(functional.linear, query, weight, bias)
        query, key, value = (
            each.unflatten(2, (heads, -1)).movedim(0, 2) for each in projected.chunk(3, dim=2)
        )  # (B, h, N, d)
        given = {"is_causal": asked["is_causal"]}
        mixed = self._attention(Call("scaled_dot_product_attention", call.function, (query, key, value), given))
        out = self._step(functional.linear, mixed.movedim(2, 0).flatten(2), out_weight, out_bias)
        return out, None

    def _step(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        call = Call(function.__name__, function, args, {})
        answer = self(call) if call.moving else None
        return function(*args) if answer is None else answer
