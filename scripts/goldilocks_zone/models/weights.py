"""Trained weights: state dictionaries, read from files without executing code in them, and loaded into networks."""

import copy
import hashlib
import io
import itertools
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

SAFETENSORS = ".safetensors"  # ending of such files; all others are read as files of torch.save
HELD_AS = ("state_dict", "model_state_dict", "model")  # names of the state dictionary in a larger checkpoint
COUNTER = "num_batches_tracked"  # of batch normalisation, which evaluation mode does not use
State = Mapping[str, Tensor]


def read(file: str | Path, fingerprint: str | None = None) -> State:
    """Read the state dictionary of a file onto the CPU.

    The file is of safetensors, or of torch.save; the latter may be a larger checkpoint with a state dictionary in it.
    `fingerprint` is the expected SHA-256 of the content. Raises ValueError if the content has another fingerprint, or
    cannot be read as tensors alone.
    """
    path = Path(file).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a file of weights") from error
    if fingerprint is not None and hashlib.sha256(content).hexdigest() != fingerprint:
        raise ValueError(f"{path} has changed since the workflow started: run again")
    try:
        if path.suffix.lower() == SAFETENSORS:
            return safetensors.torch.load(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state_in(found)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".:")
        raise ValueError(
            f"{path} cannot be read as tensors alone ({reason}): save model.state_dict() by torch.save or safetensors"
        ) from error


def state_in(found: object) -> State:
    """Return the state dictionary that `found`, a checkpoint, is or contains. Raises ValueError if there is none."""
    if isinstance(found, Mapping):
        found = next((found[name] for name in HELD_AS if isinstance(found.get(name), Mapping)), found)
    if not isinstance(found, Mapping) or not any(isinstance(each, Tensor) for each in found.values()):
        raise ValueError("the checkpoint holds no state dictionary: save model.state_dict() in it")
    return found


def loaded(module: nn.Module, state: State, name: str) -> nn.Module:
    """Copy of a module with the tensors of a state dictionary.

    The dictionary may hold a tied parameter under only one of its names. `name` identifies the dictionary in messages.
    Raises ValueError if a tensor is missing, unexpected, of another shape, not of floating point where the module's is,
    not finite, or different from one that it is tied to.
    """
    found, known = copy.deepcopy(module), module.state_dict()
    for key in (key for key in known if key in state):
        _refuse_unfit(state[key], known[key], f"{name}: {key}")
    for first, *others in _tied(module):
        given = [key for key in (first, *others) if key in state]
        if any(not torch.equal(state[given[0]], state[key]) for key in given[1:]):
            raise ValueError(f"{name}: {', '.join(given)} differ, but are one tensor in the network: make them equal")
        state = {**dict.fromkeys((first, *others), state[given[0]]), **state} if given else state
    missing, unexpected = found.load_state_dict(state, strict=False)
    if missing := [key for key in missing if not key.endswith(COUNTER)]:
        raise ValueError(f"{name}: the network's tensor {missing[0]} is missing: give weights of this network")
    if unexpected:
        raise ValueError(f"{name}: the network has no tensor {unexpected[0]}: give weights of this network")
    return found


def _refuse_unfit(given: object, known: object, where: str) -> None:
    """Raise ValueError if an entry `given` does not fit the tensor `known` of a network; `where` names the entry."""
    if not isinstance(known, Tensor):
        return
    if not isinstance(given, Tensor):
        raise ValueError(f"{where} is a {type(given).__name__}: a tensor of shape {tuple(known.shape)} is needed")
    if given.shape != known.shape:
        shapes = f"the shape {tuple(given.shape)}, but in the network {tuple(known.shape)}"
        raise ValueError(f"{where} has {shapes}: give weights of this network")
    if known.is_floating_point() and not given.is_floating_point():
        raise ValueError(
            f"{where} is of type {given.dtype}, but in the network {known.dtype}: give floating-point numbers"
        )
    if not torch.isfinite(given).all():
        raise ValueError(f"{where} has entries that are not finite: give weights of a network that has not diverged")


def _tied(module: nn.Module) -> list[list[str]]:
    """Lists of names, one list for each parameter or buffer that a module holds under several names."""
    names: dict[int, list[str]] = {}
    every = module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    for name, tensor in itertools.chain(*every):
        names.setdefault(id(tensor), []).append(name)
    return [each for each in names.values() if len(each) > 1]


def put(module: nn.Module, state: State, name: str) -> Tensor:
    """Return the parameters θ (D,) of a state dictionary, in the module's precision; copy its buffers into the module.

    Buffers include running means and frozen parameters. The module keeps its own parameters, because gains are
    initialised with their values. `name` and errors are as for `loaded`.
    """
    trained = loaded(module, state, name)
    with torch.no_grad():
        for own, other in zip(module.buffers(), trained.buffers()):
            own.copy_(other)
    return nn.utils.parameters_to_vector(trained.parameters()).detach()
