"""What explanations say of convolution, normalisation and attention: short, in the terms of the layer, and checked."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn

F = nn.functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        h = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(h.flatten(1))


def network():
    net = Net()
    logits = net(cr.randn(2, 2, 4, 4))
    loss = F.cross_entropy(logits, cr.tensor([0, 2]))
    return loss, net.conv.weight


def normalised():
    x, w = cr.randn(3, 4), cr.randn(4, 4, requires_grad=True)
    h = x @ w
    n = F.layer_norm(h, 4)
    loss = (n.square() * x).sum()
    return loss, w


def attended(is_causal=True):
    s = cr.randn(5, 4)
    wq, wk, wv = (cr.randn(4, 4, requires_grad=True) for _ in range(3))
    q = s @ wq
    k = s @ wk
    v = s @ wv
    out = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    loss = out.square().mean()
    return loss, wq


class Normed(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, bias=False) if images else nn.Linear(4, 3, bias=False)
        self.norm = nn.BatchNorm2d(3) if images else nn.BatchNorm1d(3)
        self.last = nn.Linear(12 if images else 3, 2)

    def forward(self, x):
        h = self.first(x)
        n = self.norm(h)
        return self.last(n.relu().flatten(1))


def batch_normed(images=False, training=True, wrt="first"):
    net = Normed(images).train(training)
    net.load_state_dict({"norm.running_mean": [0.1, 0.2, 0.3], "norm.running_var": [1.0, 2.0, 3.0]}, strict=False)
    logits = net(cr.randn(6, 2, 4, 4) if images else cr.randn(6, 4))
    loss = F.cross_entropy(logits, cr.tensor([0, 1, 0, 0, 1, 1]))
    return loss, getattr(net, wrt).weight


def normed_images():
    return batch_normed(images=True)


def weight_of_a_batch_norm():
    return batch_normed(images=True, wrt="norm")


def evaluated_batch_norm():
    return batch_normed(training=False)


def groups():
    norm = nn.GroupNorm(2, 4)
    x, w = cr.randn(3, 4, 5), cr.randn(5, 5, requires_grad=True)
    h = x @ w
    out = norm(h)
    loss = (out.sin() * out).sum()
    return loss, w


NORMALISED = [normalised, batch_normed, normed_images, weight_of_a_batch_norm, evaluated_batch_norm, groups]


def rules(explanation):
    return {link.name: explanation.derivation.written(link.formula) for link in explanation.links}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("program", [network, attended, *NORMALISED])
def test_every_formula_is_the_gradient(program, depth):
    loss, wrt = program()
    said = str(cr.explain(loss, wrt=wrt, depth=depth))
    assert "unchecked" not in said
    assert "DIFFERS" not in said
    assert said.count(" ok ") >= 3


def test_the_gradient_of_filters_is_a_product_of_gradients_and_windows():
    loss, wrt = network()
    said = rules(cr.explain(loss, wrt=wrt))
    assert said["conv.weight"] == (
        "permute(reshape(reshape(permute(conv_Conv2d.g, (0, 2, 3, 1)), (32, 3))^T @ "
        "reshape(permute(windows(c, (3, 3)), (0, 2, 3, 4, 5, 1)), (32, 18)), (3, 3, 3, 2)), (0, 3, 1, 2))"
    )
    deep = rules(cr.explain(loss, wrt=wrt, depth=3))
    assert "linear.g^T @ reshape(permute(windows(c, (3, 3)), (0, 2, 3, 4, 5, 1)), (32, 18))" in deep.values()


def test_a_value_made_on_the_way_does_not_take_the_name_of_the_result():
    loss, wrt = network()
    said = rules(cr.explain(loss, wrt=wrt))
    assert "h.g" in said["r"]  # the pooled value; where its entries came from has no name of the user's
    assert not any("h.1" in name or "h.1" in rule for name, rule in said.items())


def test_normalising():
    loss, wrt = normalised()
    assert rules(cr.explain(loss, wrt=wrt))["h"] == (
        "(n.g - mean(n.g, columns) - n * mean(n.g * n, columns)) * (1 / sqrt(var(h, columns) + 1e-05))"
    )
    assert r"+ 1 \cdot 10^{-5}" in cr.explain(loss, wrt=wrt).latex()


def test_a_batch_norm_is_one_step_over_the_rows():
    loss, weight = batch_normed()
    explanation = cr.explain(loss, wrt=weight)
    assert rules(explanation)["h"] == (
        "(n.g * norm.weight - mean(n.g * norm.weight, rows) - normalize(h, rows) * mean(n.g * norm.weight * "
        "normalize(h, rows), rows)) * (1 / sqrt(var(h, rows) + 1e-05))"
    )
    assert "norm: BatchNorm1d" in str(explanation)
    loss, weight = batch_normed(wrt="norm")
    assert rules(cr.explain(loss, wrt=weight))["norm.weight"] == "sum(n.g * normalize(h, rows), rows)"
    loss, weight = weight_of_a_batch_norm()
    said = rules(cr.explain(loss, wrt=weight))["norm.weight"]
    assert said == "sum(n.g * normalize(h, dim 0,2,3), dim 0,2,3)"


def test_evaluation_reads_the_running_statistics():
    loss, weight = batch_normed(training=False, wrt="norm")
    said = rules(cr.explain(loss, wrt=weight))["norm.weight"]
    assert said == "sum(n.g * (h - norm.running_mean) * c2, rows)"  # c2: 1 / √(running_var + ε), a constant


def test_attention_computes_its_weights_again():
    loss, wrt = attended(is_causal=False)
    assert rules(cr.explain(loss, wrt=wrt))["q"] == (
        "0.5 (softmax(0.5 (q @ k^T)) * (out.g @ v^T - sum(out.g * out, columns)) @ k)"
    )
    loss, wrt = attended(is_causal=True)
    assert rules(cr.explain(loss, wrt=wrt))["q"] == (
        "0.5 (softmax(where([arange(5)[:, None] >= arange(5)], 0.5 (q @ k^T), -inf)) * "
        "(out.g @ v^T - sum(out.g * out, columns)) @ k)"
    )


@pytest.mark.parametrize("program", [network, attended, *NORMALISED])
def test_rules_agree_with_numbers(program):
    loss, _ = program()
    assert "all agree" in str(cr.check(loss))


@pytest.mark.parametrize("style", ["chainrule", "numpy"])
def test_the_backward_pass_as_source_runs(style):
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(4, 4)) for name in ("s", "wq", "wk", "wv")}
    s, wq, wk, wv = (cr.tensor(value, requires_grad=name != "s") for name, value in values.items())
    loss = F.layer_norm(F.scaled_dot_product_attention(s @ wq, s @ wk, s @ wv, is_causal=True), 4).pow(3).sum()
    names = {}
    exec(cr.backward_source(loss, style=style), names)
    given = values.values() if style == "numpy" else (x.detach() for x in (s, wq, wk, wv))
    found = names["backward"](*given)
    loss.backward()
    for gradient, w in zip(found, (wq, wk, wv), strict=True):
        np.testing.assert_allclose(np.asarray(gradient), w.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("style", ["chainrule", "numpy"])
def test_the_backward_pass_of_a_batch_norm_as_source_runs(style, images):
    cr.manual_seed(0)
    net = Normed(images).double()
    x, y = cr.randn(6, 2, 4, 4).double() if images else cr.randn(6, 4).double(), cr.tensor([0, 1, 0, 0, 1, 1])
    loss = F.cross_entropy(net(x), y)
    source = cr.backward_source(loss, style=style)
    assert ("cr.nn.functional.batch_norm(h, None, None, training=True, eps=1e-05)" in source) == (style == "chainrule")
    names = {}
    exec(source, names)
    given = {"x": x, "c": x, "y": y} | {n.replace(".", "_"): p.detach() for n, p in net.named_parameters()}
    taken = names["backward"].__code__.co_varnames[: names["backward"].__code__.co_argcount]
    found = names["backward"](*(given[n].numpy() if style == "numpy" else given[n] for n in taken))
    loss.backward()
    for gradient, p in zip(found, net.parameters(), strict=True):
        np.testing.assert_allclose(np.asarray(gradient), p.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_unending_numbers_are_written_as_code_knows_them():
    x, y = (cr.tensor([1.0, -1.0], requires_grad=True) for _ in range(2))
    loss = cr.where(x > y, x * y, -cr.inf).exp().sum()
    assert ", -cr.inf)" in cr.backward_source(loss)
    assert ", -np.inf)" in cr.backward_source(loss, style="numpy")
