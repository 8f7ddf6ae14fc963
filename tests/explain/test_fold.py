"""The fold tree and the names: a run grouped and named as the user wrote it."""

import linecache

import chainrule as cr
from chainrule import nn
from chainrule.explain.record import Run

W = cr.randn(3, 3, requires_grad=True)
X = cr.randn(2, 3)


def steps(loss, depth=1):
    run = Run(loss, {})
    return [fold.name for fold in run.tree.opened(depth)]


def names(loss):
    run = Run(loss, {})
    return [run.name(x) for x in run.nodes if run.name(x)]


def relu(x):
    return x.clamp_min(0.0)


def lin(x, w):
    return x @ w


def both(x, w):
    h = lin(x, w)
    return relu(h)


def test_a_call_each_time_it_is_made():
    loss = relu(relu(relu(lin(X, W)))).sum()
    assert steps(loss) == ["lin", "relu", "relu", "relu", "loss = relu(relu(relu(lin(X, W)))).sum()"]


def test_calls_in_a_loop():
    h = X
    for _ in range(3):
        h = relu(lin(h, W))
    loss = h.sum()
    assert steps(loss) == ["lin", "relu"] * 3 + ["loss = h.sum()"]
    assert names(loss) == ["h.1", "h.2", "h.3", "loss"]


def test_a_statement_in_a_loop():
    h = X @ W
    for _ in range(3):
        h = h.sigmoid()
    for _ in range(2):
        h = (h * 2 + 1).tanh()
    loss = h.sum()
    assert steps(loss) == ["h = X @ W", *["h = h.sigmoid()"] * 3, *["h = (h * 2 + 1).tanh()"] * 2, "loss = h.sum()"]
    assert len(names(loss)) == 7


def test_a_loop_inside_a_function_is_one_step():
    def repeated(x):
        for _ in range(3):
            x = x.sin()
        return x

    loss = repeated(X @ W).sum()
    assert steps(loss) == ["loss = repeated(X @ W).sum()", "repeated", "loss = repeated(X @ W).sum()"]
    assert steps(loss, 2) == ["matmul", "sin", "sin", "sin", "sum"]


def test_nested_functions_open_by_depth():
    out = both(X, W)
    loss = out.mean()
    assert steps(loss) == ["both", "loss = out.mean()"]
    assert steps(loss, 2) == ["lin", "relu", "mean"]
    assert steps(loss, 3) == ["matmul", "clamp_min", "mean"]


def test_recursion():
    def power(x, n):
        return x if n == 0 else power(x, n - 1) * x

    loss = power(W, 3).sum()
    assert steps(loss) == ["power", "loss = power(W, 3).sum()"]
    assert steps(loss, 2) == ["power", "mul", "sum"]


def test_two_statements_on_one_line():
    a = X @ W
    b = relu(a)
    loss = b.sum()
    assert steps(loss) == ["a = X @ W", "relu", "loss = b.sum()"]
    assert names(loss) == ["a", "b", "loss"]


def test_names_of_every_kind_of_assignment():
    class Holder: ...

    holder = Holder()
    first, second = X @ W, W.sum()
    holder.third = first + second
    if (fourth := holder.third * 2).numel() > 0:
        fifth: cr.Tensor = fourth.exp()
    loss = fifth.sum()
    assert names(loss) == ["first", "second", "holder.third", "fourth", "fifth", "loss"]


def test_an_operand_stretched_on_the_way_has_no_name():
    bias = cr.randn(3, requires_grad=True)
    out = X @ W + bias
    loss = out.sum()
    run = Run(loss, {})
    assert [(x.op.name, run.name(x)) for x in run.nodes] == [
        ("matmul", None),
        ("expand", None),
        ("add", "out"),
        ("sum", "loss"),
    ]


def test_modules_by_their_path():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))
    out = model(X)
    loss = nn.functional.mse_loss(out, cr.zeros(2, 2))
    assert steps(loss) == ["0: Linear", "1: ReLU", "2.0: Linear", "mse_loss"]
    run = Run(loss, {})
    assert [run.name(x) for x in run.leaves] == ["0.weight", "0.bias", "2.0.weight", "2.0.bias"]


def test_a_module_called_twice():
    layer = nn.Linear(3, 3)
    loss = layer(layer(X)).sum()
    assert steps(loss) == ["Linear", "Linear", "loss = layer(layer(X)).sum()"]


def test_a_module_deep_in_the_stack():
    model = nn.Linear(3, 1)

    def deep(n):
        return deep(n - 1) if n else model(X)

    loss = deep(30).sum()
    assert "Linear" in steps(loss) or "Linear" in steps(loss, 40)


def test_everything_inside_one_function_opens_it():
    def step():
        h = lin(X, W)
        return relu(h).sum()

    assert steps(step()) == ["lin", "relu", "return relu(h).sum()"]


def test_cells_of_a_notebook_are_one_program():
    namespace = {"cr": cr}

    def cell(number, source):
        name = f"<cell {number}>"
        linecache.cache[name] = (len(source), None, [source + "\n"], name)
        exec(compile(source, name, "exec"), namespace)

    cell(1, "x, w = cr.randn(4, 3), cr.randn(3, 2, requires_grad=True)")
    cell(2, "def relu(x): return x.clamp_min(0.)")
    cell(3, "h = x @ w")
    cell(4, "a = relu(h)")
    cell(5, "b = a.square()")
    cell(6, "loss = b.mean()")
    loss = namespace["loss"]
    assert steps(loss) == ["h = x @ w", "relu", "b = a.square()", "loss = b.mean()"]
    assert names(loss) == ["h", "a", "b", "loss"]


def test_tensors_in_containers_go_by_their_place():
    params = {"w": W, "b": cr.zeros(3, requires_grad=True)}
    layers = [cr.randn(3, 3, requires_grad=True)]
    out = (X @ params["w"] + params["b"]) @ layers[0]
    loss = out.sum()
    run = cr.explain(loss, wrt=params["b"]).run
    assert [run.name(x) for x in run.leaves][1:] == ['params["b"]', "layers[0]"]


def test_a_value_without_a_name_gets_none_that_the_users_code_uses():
    def forward(x):
        e = 2.0  # a number; and the name that is made up for what exp gives, where nobody uses it
        h = x @ W
        return (h * e).exp().sum()

    loss = forward(X)
    said = str(cr.explain(loss, wrt=W, depth=2))
    assert "e2 = exp(m)" in said


def test_of_many_lines_the_last_is_shown_too():
    h = X @ W
    h = h * 2.0
    h = h.exp()
    h = h + 1.0
    h = h.log()
    h = h * h
    loss = h.sum()
    said = str(cr.explain(loss, wrt=W))
    assert "h = X @ W" in said
    assert "3 lines between" in said


def test_tensors_that_one_line_made_go_by_their_place():
    def initial():
        return [cr.randn(3, 3, requires_grad=True), cr.zeros(3, requires_grad=True)]

    weights = initial()
    loss = (X @ weights[0] + weights[1]).sum()
    run = cr.explain(loss, wrt="weights[1]").run
    assert [run.name(x) for x in run.leaves] == ["weights[0]", "weights[1]"]


def test_the_model_itself_is_opened():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.second(self.first(x).relu())

    net = Net()
    loss = net(X).sum()
    assert steps(loss) == ["first: Linear", "relu", "second: Linear", "loss = net(X).sum()"]
