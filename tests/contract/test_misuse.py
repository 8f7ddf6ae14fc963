"""What an op must refuse, it refuses with its documented error, in words that name the op and what arrived."""

import pytest

from chainrule.errors import ChainruleError


@pytest.mark.parametrize("kind", ["tensors", "symbols"])
def test_refusal(misuse, kind):
    inputs = getattr(misuse, kind)()
    with pytest.raises(misuse.misuse.error, match=misuse.misuse.says) as caught:
        misuse(*inputs)
    message = str(caught.value)
    assert isinstance(caught.value, ChainruleError)
    assert message.startswith(f"{misuse.op.name}: ")
    if "takes" not in misuse.misuse.says:
        for aval, arg in zip(misuse.avals(), misuse.misuse.args, strict=True):
            assert str(aval) in message or arg.kind == "bool"  # a condition's dtype is not what is wrong
    if inputs:
        assert "\n  at conftest.py:" in message  # the line that called the op
