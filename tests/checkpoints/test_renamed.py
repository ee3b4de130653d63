from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from soupcore import Checkpoint, CheckpointError, Mixture, mean, open_checkpoint
from soupcore.checkpoints import RenamedCheckpoint
from soupcore.checkpoints.renamed import named_like
from tests.helpers import same_bits, same_weights
from tests.toy import moved, random_state

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def seen_without(prefix: str, checkpoint: Checkpoint) -> RenamedCheckpoint:
    return RenamedCheckpoint(checkpoint, {n.removeprefix(prefix): n for n in checkpoint.tensors})


def test_a_view_gives_the_same_weights_under_other_names(checkpoint_of: CheckpointOf) -> None:
    state = random_state(1)
    checkpoint = checkpoint_of(prefixed(state, "module."))
    view = seen_without("module.", checkpoint)
    assert same_weights(view.state_dict(), state)
    assert view.tensors == checkpoint_of(state).tensors
    assert (view.path, view.nbytes, view.stamp) == (
        checkpoint.path,
        checkpoint.nbytes,
        checkpoint.stamp,
    )
    assert view.original is checkpoint
    assert view.original_names["0.weight"] == "module.0.weight"
    assert checkpoint.original is checkpoint
    assert checkpoint.original_names["module.0.weight"] == "module.0.weight"


def test_a_view_does_not_read_the_file_again(checkpoint_of: CheckpointOf) -> None:
    checkpoint = checkpoint_of(prefixed(random_state(1), "net."))
    view = seen_without("net.", checkpoint)
    read: list[int] = []
    assert not view.is_scanned
    view.scan(read.append)
    assert sum(read) == checkpoint.nbytes
    seen_without("net.", open_checkpoint(checkpoint.path)).scan(read.append)
    assert sum(read) == checkpoint.nbytes
    assert view.is_scanned
    assert view.digest == checkpoint.digest


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.", "model.bert."])
def test_the_same_weights_with_and_without_a_prefix_are_one_point(
    checkpoint_of: CheckpointOf, prefix: str
) -> None:
    plain, wrapped = (checkpoint_of(prefixed(random_state(1), p)) for p in ("", prefix))
    assert plain.digest == wrapped.digest
    assert Mixture([(plain, 1)]) == Mixture([(wrapped, 1)])


def test_views_are_mixed_with_checkpoints_that_have_the_names(checkpoint_of: CheckpointOf) -> None:
    one, two = random_state(1), moved(random_state(1), 0.1, 2)
    plain = [Mixture([(checkpoint_of(state), 1)]) for state in (one, two)]
    view = seen_without("module.", checkpoint_of(prefixed(two, "module.")))
    assert mean([plain[0], Mixture([(view, 1)])]) == mean(plain)
    assert same_weights(
        mean([plain[0], Mixture([(view, 1)])]).state_dict(), mean(plain).state_dict()
    )


def test_a_view_may_leave_tensors_out_and_give_one_two_names(checkpoint_of: CheckpointOf) -> None:
    checkpoint = checkpoint_of({"embed": torch.arange(3.0), "n_averaged": torch.tensor(7)})
    view = RenamedCheckpoint(checkpoint, {"embed": "embed", "head": "embed"})
    assert [*view.tensors] == ["embed", "head"]
    assert same_bits(view.read("head"), checkpoint.read("embed"))
    assert view.digest == checkpoint.digest
    assert view.ties == (("embed", "head"),)


def test_ties_have_the_names_of_the_view(checkpoint_of: CheckpointOf) -> None:
    checkpoint = checkpoint_of({f"m.{name}": torch.ones(1) for name in "abcde"})
    checkpoint.ties = (("m.a", "m.b", "m.c"), ("m.d", "m.e"))
    view = RenamedCheckpoint(checkpoint, {"a": "m.a", "c": "m.c", "d": "m.d"})
    assert view.ties == (("a", "c"),)


def test_a_view_notices_that_its_file_was_changed(checkpoint_of: CheckpointOf) -> None:
    checkpoint = checkpoint_of({"net.w": torch.ones(1)})
    before = checkpoint.stamp
    checkpoint.path.write_bytes(checkpoint.path.read_bytes() + b"\0")
    view = seen_without("net.", checkpoint)
    assert view.stamp == before
    with pytest.raises(CheckpointError, match="was changed after it was opened"):
        view.check_unchanged()


TIED = {"embed.weight": torch.ones(4, 2), "block.weight": torch.ones(2, 2)}


def test_missing_names_of_tied_tensors_are_added(
    checkpoint_of: CheckpointOf,
) -> None:
    whole = checkpoint_of(TIED | {"lm_head.weight": torch.ones(4, 2)})
    whole.ties = (("embed.weight", "lm_head.weight"),)
    brief = checkpoint_of(TIED)
    seen = named_like(brief, whole.tensors, whole.ties)
    assert seen.tensors.keys() == whole.tensors.keys()
    assert seen.ties == (("embed.weight", "lm_head.weight"),)
    assert same_weights(seen.state_dict(), whole.state_dict())
    assert seen.digest == brief.digest


def test_names_of_tied_tensors_are_omitted_if_the_reference_omits_them(
    checkpoint_of: CheckpointOf,
) -> None:
    whole = checkpoint_of(prefixed(TIED | {"lm_head.weight": torch.ones(4, 2)}, "module."))
    whole.ties = (("module.embed.weight", "module.lm_head.weight"),)
    seen = named_like(whole, TIED, ())
    assert seen.tensors.keys() == TIED.keys()
    assert isinstance(seen, RenamedCheckpoint)


def test_tensors_that_are_not_tied_are_missing(checkpoint_of: CheckpointOf) -> None:
    whole = checkpoint_of(TIED | {"lm_head.weight": torch.ones(4, 2)})
    brief = checkpoint_of(TIED)
    assert named_like(brief, whole.tensors, whole.ties) is brief
    assert named_like(whole, brief.tensors, brief.ties) is whole
