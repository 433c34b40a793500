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
    """Read a state dictionary from a `file`, with its tensors on the CPU.

    A file whose name ends in `.safetensors` is read as such, any other as written by torch.save. The latter may be a
    larger checkpoint that contains the state dictionary. `fingerprint` is the expected SHA-256 of the content; None
    means that it is not checked. Raises ValueError if the file cannot be read, has another fingerprint, cannot be
    loaded without executing code in it, or holds no state dictionary.
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
    """Copy a `module`, and load the tensors of the state dictionary `state` into the copy, which is returned.

    `state` may hold a tied parameter under only one of its names, and may lack the batch counters of batch
    normalisation. `name` identifies `state` in messages. Raises ValueError if another tensor is missing, or if one is
    unknown to the module, of another shape, or not finite. It is also raised if integers are given for a floating-point
    tensor, or different values for tied tensors.
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
    """Raise ValueError if an entry of a state dictionary, `given`, does not fit the network's own entry, `known`.

    `where` identifies the entry in messages. If `known` is not a tensor, nothing is checked.
    """
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
    """For each parameter or buffer that a module holds under several names, the list of these names."""
    names: dict[int, list[str]] = {}
    every = module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    for name, tensor in itertools.chain(*every):
        names.setdefault(id(tensor), []).append(name)
    return [each for each in names.values() if len(each) > 1]


def put(module: nn.Module, state: State, name: str) -> Tensor:
    """Return the parameters θ (D,) in the state dictionary `state`, and copy its buffers into the `module`.

    θ is in the precision of the module. Buffers include running means and frozen parameters. The module's parameters
    are not changed, because gains are initialised with their values in the module. `name` and errors are as for
    `loaded`.
    """
    trained = loaded(module, state, name)
    with torch.no_grad():
        for own, other in zip(module.buffers(), trained.buffers()):
            own.copy_(other)
    return nn.utils.parameters_to_vector(trained.parameters()).detach()
