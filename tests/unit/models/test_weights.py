"""Trained weights: files of tensors, read without executing their content, and loaded into networks."""

import hashlib
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from goldilocks_zone.models import user_networks, weights


class Tied(nn.Module):
    """A network with batch normalisation, two tied layers, and a frozen first layer that is tied to an unused one."""

    def __init__(self, image=(1, 2, 3), classes=4):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.inner = nn.Linear(5, 5, bias=False)
        self.again = nn.Linear(5, 5, bias=False)
        self.again.weight = self.inner.weight
        self.last = nn.Linear(5, classes)
        self.first.weight.requires_grad_(False)
        self.unused = nn.Linear(6, 5, bias=False)
        self.unused.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.again(torch.tanh(self.inner(self.norm(self.first(x.flatten(1))))))))


def network(seed=0):
    torch.manual_seed(seed)
    module = Tied().double().eval()
    module.norm.running_mean += torch.rand(5)
    return user_networks.with_fixed(module)


def saved(path, content):
    (safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
def test_a_state_dictionary_is_read_from_either_form(name, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    path = saved(tmp_path / name, state)
    found = weights.read(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("key", weights.HELD_AS)
def test_a_state_dictionary_is_found_in_a_larger_checkpoint(key, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    optimiser = torch.optim.Adam(nn.Linear(3, 2).parameters()).state_dict()
    found = weights.read(saved(tmp_path / "a.ckpt", {"epoch": 3, "optimizer": optimiser, key: state}))
    assert torch.equal(found["weight"], state["weight"])


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("done",)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [Harmful(), nn.Linear(2, 2), {"weight": Harmful()}], ids=["code", "module", "inside"]
)
def test_nothing_in_a_file_is_run(name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, name)
    with pytest.raises(ValueError, match=r"a\.\w+ cannot be read as tensors alone \(.+\): save model\.state_dict\(\)"):
        weights.read(name)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("content", [{}, [torch.ones(2)], {"epoch": 3}, torch.ones(3)])
def test_a_file_without_a_state_dictionary_is_refused(content, tmp_path):
    with pytest.raises(ValueError, match="the checkpoint holds no state dictionary"):
        weights.read(saved(tmp_path / "a.pt", content))


def test_a_file_that_is_not_there_or_has_changed_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pt cannot be read \(No such file"):
        weights.read(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory"):
        weights.read(tmp_path)
    path = saved(tmp_path / "a.pt", {"w": torch.ones(2)})
    with pytest.raises(ValueError, match=r"a\.pt has changed since the workflow started: run again"):
        weights.read(path, "0" * 64)


STATE = network(1).state_dict()
MISFITS = {
    "missing": ({key: STATE[key] for key in STATE if key != "last.bias"}, "the network's tensor last.bias is missing"),
    "superfluous": ({**STATE, "head.bias": torch.ones(2)}, "the network has no tensor head.bias"),
    "shape": (
        {**STATE, "last.weight": torch.ones(5, 5)},
        "last.weight has the shape (5, 5), but in the network (4, 5)",
    ),
    "shape of a buffer": ({**STATE, "norm.running_var": torch.ones(4)}, "norm.running_var has the shape (4,)"),
    "whole numbers": ({**STATE, "last.bias": torch.ones(4, dtype=torch.int64)}, "last.bias is of type torch.int64"),
    "diverged": (
        {**STATE, "last.bias": torch.tensor([0.0, 1, torch.nan, 2])},
        "last.bias has entries that are not fin",
    ),
    "no tensor": ({**STATE, "last.bias": 3.0}, "last.bias is a float"),
    "untied": ({**STATE, "again.weight": torch.ones(5, 5)}, "inner.weight, again.weight differ, but are one tensor"),
}


@pytest.mark.parametrize("state, reason", MISFITS.values(), ids=MISFITS)
def test_weights_of_another_network_are_refused_in_one_sentence_with_the_key(state, reason):
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError) as refusal:
        weights.put(module, state, "runs/a.pt")
    assert str(refusal.value).startswith(f"runs/a.pt: {reason}") and ": " in str(refusal.value).split(reason)[1]
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("left_out", ["", "again.weight", "inner.weight", "unused.weight", "norm.num_batches_tracked"])
def test_weights_become_a_point_and_the_module_takes_their_buffers_alone(left_out):
    """A tied parameter may be named once, as by safetensors.torch.save_model; a frozen one is a buffer."""
    module, other = network(0), network(1)
    own = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    state = {key: value for key, value in other.state_dict().items() if key != left_out}
    theta = weights.put(module, state, "a.pt")
    assert torch.equal(theta, nn.utils.parameters_to_vector(other.parameters()))
    assert torch.equal(nn.utils.parameters_to_vector(module.parameters()), own)
    for (name, buffer), (_, expected) in zip(module.named_buffers(), other.named_buffers()):
        assert torch.equal(buffer, expected), name
    assert "first.weight" in dict(module.named_buffers())
    images = torch.rand(7, 1, 2, 3, dtype=torch.float64)
    nn.utils.vector_to_parameters(theta, module.parameters())
    assert torch.equal(module(images), other(images))


def test_precisions_are_those_of_the_network():
    module = network()
    state = {key: value.bfloat16() if value.is_floating_point() else value for key, value in STATE.items()}
    theta = weights.put(module, state, "a.pt")
    expected = torch.cat([state[name].double().flatten() for name, _ in module.named_parameters()])
    assert theta.dtype == torch.float64 and torch.equal(theta, expected)
