import json
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import update_bn

from soupcore import (
    Cancelled,
    CheckpointError,
    ClassificationTask,
    Evaluator,
    Mixture,
    RecipeError,
    Soup,
    Sweep,
    greedy,
    manual,
    open_checkpoint,
    task_arithmetic,
    uniform,
    wise_ft,
)
from soupcore.recipes import Step
from soupcore.writers import write_safetensors
from tests.helpers import (
    State,
    any_tensor,
    average,
    infos,
    same_bits,
    same_weights,
    save_checked,
    save_sweep,
)
from tests.toy import build_model, logits

pytestmark = pytest.mark.usefixtures("read_in_this_process")


def strict_json(text: str) -> Any:
    """Parse what any JSON parser would; Python's own takes NaN as well."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


# The file


def test_a_saved_soup_is_the_float64_mean_of_its_ingredients(
    tmp_path: Path, sweep: Sweep, states: dict[str, State], evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator)
    save_checked(soup, tmp_path / "soup.safetensors")
    loaded = load_file(tmp_path / "soup.safetensors")
    assert same_weights(loaded, average([states[name] for name in soup.coefficients]))
    assert same_weights(loaded, soup.state_dict())


def test_a_saved_soup_has_the_stored_score(
    tmp_path: Path, sweep: Sweep, task: ClassificationTask, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).evaluate(evaluator)
    save_checked(soup, str(tmp_path / "soup.safetensors"))
    state = load_file(tmp_path / "soup.safetensors")
    for split in ("val", "test", "shift/noise"):
        data = task.split(split)
        right = (logits(state, data.inputs).argmax(1) == data.targets).double().mean()
        assert soup.evaluations[split].score == pytest.approx(float(right))


def test_a_soup_file_opens_as_a_checkpoint_of_the_same_weights(
    tmp_path: Path, sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = manual(sweep, {"run1": 1, "run10": 3})
    assert save_checked(soup, tmp_path / "soup.safetensors") == [tmp_path / "soup.safetensors"]
    assert stat.S_IMODE((tmp_path / "soup.safetensors").stat().st_mode) & 0o600 == 0o600
    again = Mixture([(open_checkpoint(tmp_path / "soup.safetensors"), 1)])
    mixed, saved = (evaluator.evaluate(point, "val") for point in (soup.mixture, again))
    assert torch.equal(mixed.outputs, saved.outputs)


def test_the_recipe_travels_in_the_metadata(
    tmp_path: Path, sweep: Sweep, task: ClassificationTask, evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator).evaluate(evaluator, ["test"])
    save_checked(soup, tmp_path / "soup.safetensors")
    with safe_open(tmp_path / "soup.safetensors", framework="pt") as file:
        recipe = strict_json(file.metadata()["stockpot"])
    assert recipe == json.loads(json.dumps(soup.to_json()))
    assert recipe["recipe"] == "greedy"
    assert recipe["parameters"] == soup.parameters
    assert sum(map(Fraction, recipe["coefficients"].values())) == 1
    assert recipe["digests"] == {name: sweep[name].digest for name in soup.coefficients}
    assert [step["candidate"] for step in recipe["trace"]] == [s.candidate for s in soup.trace]
    assert set(recipe["scores"]) == {"val", "test"}
    assert recipe["scores"]["test"] == {
        "score": soup.evaluations["test"].score,
        "loss": soup.evaluations["test"].loss,
        "n": 90,
        "split_digest": task.split("test").digest,
    }
    assert recipe["task_key"] == task.key
    assert recipe["base"] is None
    assert set(recipe["versions"]) == {"stockpot", "python", "torch", "numpy"}


def test_metadata_of_the_ingredients_is_kept(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        tensor = torch.tensor([value])
        save_file({"w": tensor}, tmp_path / f"{name}.safetensors", {"format": "pt"})
    save_checked(uniform(Sweep.from_folder(tmp_path)), tmp_path / "soup.safetensors")
    with safe_open(tmp_path / "soup.safetensors", framework="pt") as file:
        assert set(file.metadata()) == {"format", "stockpot"}
        assert file.metadata()["format"] == "pt"


def test_nan_is_null_in_the_recipe(tmp_path: Path, sweep: Sweep, evaluator: Evaluator) -> None:
    soup = uniform(sweep).evaluate(evaluator, ["val"])
    nan = float("nan")
    soup.evaluations["val"] = replace(soup.evaluations["val"], loss=nan, score=nan)
    soup.trace = (replace(greedy(sweep, evaluator).trace[0], score=nan),)
    save_checked(soup, tmp_path / "soup.safetensors")
    with safe_open(tmp_path / "soup.safetensors", framework="pt") as file:
        recipe = strict_json(file.metadata()["stockpot"])
    assert (recipe["scores"]["val"]["score"], recipe["scores"]["val"]["loss"]) == (None, None)
    assert recipe["trace"][0]["score"] is None
    assert repr(Soup.from_json(sweep, recipe).trace[0].score) == "nan"


def test_bytes_written_are_reported_and_a_stop_leaves_no_file(tmp_path: Path, sweep: Sweep) -> None:
    written: list[int] = []
    save_checked(uniform(sweep), tmp_path / "soup.safetensors", on_bytes=written.append)
    assert sum(written) == sweep["run1"].checkpoint.nbytes

    def stop(nbytes: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        save_checked(uniform(sweep), tmp_path / "other.safetensors", on_bytes=stop)
    assert [path.name for path in tmp_path.glob("*.*")] == ["soup.safetensors"]


def test_a_soup_of_a_file_changed_since_is_not_saved(tmp_path: Path, sweep: Sweep) -> None:
    soup = uniform(sweep)
    save_file({"w": torch.ones(1)}, sweep["run2"].checkpoint.path)
    with pytest.raises(CheckpointError, match=r"run2\.safetensors was changed"):
        save_checked(soup, tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [(torch.float16, 65504.0), (torch.float32, 3.4e38), (torch.float64, 8e307)],
    ids=str,
)
def test_a_soup_too_large_for_its_dtype_is_not_saved(
    tmp_path: Path, dtype: torch.dtype, largest: float
) -> None:
    states = {
        "a": {"w": torch.tensor([1.0, largest], dtype=dtype)},
        "b": {"w": torch.tensor([1.0, -largest], dtype=dtype)},
    }
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    save_checked(uniform(sweep), tmp_path / "fine.safetensors")
    with pytest.raises(CheckpointError, match=r"'w' .*too large"):
        manual(sweep, {"a": 3, "b": -2}).save(tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


def shuffled_sweep(folder: Path) -> Sweep:
    """Ingredients that agree in nothing but names and shapes; "one" is the first by name."""
    states = {
        "one": {"z": any_tensor(torch.bfloat16, 8), "n": torch.tensor(3), "a": torch.ones(4)},
        "three": {"a": torch.zeros(4), "n": torch.tensor(5), "z": any_tensor(torch.float32, 8)},
        "two": {"n": torch.tensor(4), "z": any_tensor(torch.float16, 8), "a": torch.ones(4)},
    }
    folder.mkdir()
    for name, state in states.items():
        write_safetensors(
            folder / f"{name}.safetensors",
            infos(state),
            lambda key, state=state: [state[key].flatten()],  # type: ignore[misc]
            {"author": name},
        )
    return Sweep.from_folder(folder)


@pytest.mark.parametrize(
    ("coefficients", "form"),
    [
        ({"three": 1, "two": 2, "one": 1}, "one"),
        ({"three": 1, "two": 1}, "three"),
        ({"two": 1, "one": 0}, "two"),
    ],
)
def test_a_soup_has_the_order_the_metadata_and_the_dtypes_of_its_first_ingredient(
    tmp_path: Path, coefficients: dict[str, int], form: str
) -> None:
    sweep = shuffled_sweep(tmp_path / "sweep")
    soup = manual(sweep, coefficients)
    assert soup.form is sweep[form]
    save_checked(soup, tmp_path / "soup.safetensors")
    written, first = open_checkpoint(tmp_path / "soup.safetensors"), sweep[form].checkpoint
    assert list(written.tensors.items()) == list(first.tensors.items())
    assert written.metadata["author"] == form
    assert written.metadata["format"] == "pt"  # transformers opens no file without it
    expected = soup.state_dict()
    for name, info in first.tensors.items():
        assert same_bits(written.read(name), expected[name].to(info.dtype))


def test_ingredients_with_coefficient_0_take_part_and_excluded_ones_do_not(sweep: Sweep) -> None:
    two = ["run1", "run2"]
    for soup in (
        task_arithmetic(sweep, two, scale=0.5),
        task_arithmetic(sweep, two, scale=0),
        wise_ft(sweep, two, alpha=0),
        wise_ft(sweep, two, alpha=1),
    ):
        for one in (soup, Soup.from_json(sweep, soup.to_json())):
            assert (one.ingredients, one.base) == (two, "base")
            assert one.file_name("base") == "base.safetensors"
            assert [*one.coefficients] == ["base", *two]
            assert one.id == soup.id
    soup = manual(sweep, {"run1": 1, "run2": 0})
    assert (soup.ingredients, [*soup.coefficients]) == (["run1"], ["run1"])


def test_the_base_determines_the_form_only_without_ingredients(sweep: Sweep) -> None:
    assert manual(sweep, {"base": 1, "run10": 1}).form is sweep["run10"]
    assert manual(sweep, {"base": 1}).form is sweep.base


def test_an_order_that_would_leave_tensors_misaligned_is_not_kept(tmp_path: Path) -> None:
    state = {"odd": torch.ones(1, dtype=torch.uint8), "w": torch.ones(2), "b": torch.ones(1)}
    torch.save(state, tmp_path / "a.pt")
    save_checked(uniform(Sweep.from_folder(tmp_path)), tmp_path / "soup.safetensors")
    assert list(open_checkpoint(tmp_path / "soup.safetensors").tensors) == ["w", "b", "odd"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("given_as", ["name", "dtype"])
def test_a_soup_is_written_in_the_dtype_that_was_chosen(
    tmp_path: Path, sweep: Sweep, dtype: str, given_as: str
) -> None:
    soup = uniform(sweep)
    chosen: torch.dtype = getattr(torch, dtype)
    save_checked(soup, tmp_path / "soup.safetensors", dtype if given_as == "name" else chosen)
    loaded = load_file(tmp_path / "soup.safetensors")
    expected = {
        name: tensor.to(chosen) if tensor.is_floating_point() else tensor
        for name, tensor in soup.state_dict().items()
    }
    assert same_weights(loaded, expected)


def test_numbers_that_are_whole_only_in_the_first_ingredient_are_not_cut(tmp_path: Path) -> None:
    w = torch.ones(2)
    states = {"a": {"w": w, "steps": torch.tensor(3)}, "b": {"w": w, "steps": torch.tensor(4.0)}}
    uniform(Sweep.from_folder(save_sweep(tmp_path / "sweep", states))).save(
        tmp_path / "soup.safetensors"
    )
    assert load_file(tmp_path / "soup.safetensors")["steps"].item() == 3.5


@pytest.mark.parametrize("shard_size", [None, 100])
def test_a_soup_too_large_for_the_chosen_dtype_is_not_written(
    tmp_path: Path, shard_size: int | None
) -> None:
    states = {"a": {"v": torch.ones(64), "w": torch.full((64,), 1e5)}}
    soup = uniform(Sweep.from_folder(save_sweep(tmp_path / "sweep", states)))
    target = tmp_path / "soup" / "model.safetensors"
    target.parent.mkdir()
    with pytest.raises(CheckpointError, match=r"'w' .*too large for torch.float16. .* bfloat16 or"):
        save_checked(soup, target, "float16", shard_size)
    assert not list(target.parent.iterdir())
    save_checked(soup, target, "bfloat16", shard_size)


def test_a_soup_in_shards_is_the_soup_in_one_file(tmp_path: Path, sweep: Sweep) -> None:
    soup = uniform(sweep)
    save_checked(soup, tmp_path / "whole.safetensors")
    written = save_checked(soup, tmp_path / "model.safetensors", shard_size=150)
    assert len(written) > 2
    whole, shards = open_checkpoint(tmp_path / "whole.safetensors"), open_checkpoint(written[-1])
    assert shards.digest == whole.digest
    assert list(shards.tensors) == list(whole.tensors)
    assert shards.metadata == whole.metadata


def torch_sweep(folder: Path, **files: Any) -> Sweep:
    folder.mkdir()
    for name, saved in files.items():
        torch.save(saved, folder / f"{name}.pt")
    return Sweep.from_folder(folder)


def run_of(state: State, epoch: int) -> dict[str, Any]:
    return {"state_dict": state, "epoch": epoch, "optimizer_states": [{"m": torch.ones(3)}]}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_soup_is_written_as_the_file_of_its_first_ingredient(
    tmp_path: Path, states: dict[str, State], suffix: str
) -> None:
    runs = {name: run_of(state, epoch) for epoch, (name, state) in enumerate(states.items())}
    sweep = torch_sweep(tmp_path / "sweep", **runs)
    soup = uniform(sweep)
    target = tmp_path / f"soup{suffix}"
    assert save_checked(soup, target) == [target, tmp_path / "soup.recipe.json"]
    loaded = torch.load(target, weights_only=True)
    assert same_weights(loaded["state_dict"], average(list(states.values())))
    assert loaded.keys() == {"state_dict", "epoch", "stockpot"}
    assert loaded["epoch"] == -1
    recipe = strict_json((tmp_path / "soup.recipe.json").read_text())
    assert recipe.pop("pt") == {
        "form_of": "run1.pt",
        "weights": "",
        "changes": [
            {"place": "epoch", "role": "progress of the run", "action": "reset"},
            {"place": "optimizer_states", "role": "training state", "action": "removed"},
        ],
        "kept": [],
    }
    assert recipe == json.loads(json.dumps(soup.to_json()))
    assert strict_json(open_checkpoint(target).metadata["stockpot"]) == recipe
    assert same_weights(open_checkpoint(target).state_dict(), soup.state_dict())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_soup_among_runs_is_recognised_and_shows_nothing_of_the_first_run(
    tmp_path: Path, states: dict[str, State], suffix: str
) -> None:
    runs = {
        name: run_of(state, epoch) | {"best_acc": epoch / 8, "args": {"lr": epoch / 4}}
        for epoch, (name, state) in enumerate(states.items())
    }
    sweep = torch_sweep(tmp_path / "sweep", **runs)
    save_checked(uniform(sweep), tmp_path / f"soup{suffix}")
    (tmp_path / f"soup{suffix}").rename(tmp_path / "sweep" / f"soup{suffix}")
    again = Sweep.from_folder(tmp_path / "sweep")
    soup = again.ingredients["soup"]
    assert soup.checkpoint.details == {}
    assert {soup.hyperparameters.get(name) for name in ("epoch", "best_acc", "lr")} == {None}
    (finding,) = [found for found in again.fit.findings if found.ingredient == "soup"]
    assert "is a soup saved by Stockpot (uniform)" in finding.problem


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_mean_of_equal_files_has_their_weights(
    tmp_path: Path, base_state: State, zipped: bool
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    for name in "abc":
        run = run_of(base_state, ord(name))
        torch.save(run, folder / f"{name}.pt", _use_new_zipfile_serialization=zipped)
    soup = uniform(Sweep.from_folder(folder))
    assert len(soup.coefficients) == 3
    save_checked(soup, tmp_path / "soup.pt")
    assert open_checkpoint(tmp_path / "soup.pt").digest == soup.form.digest
    save_checked(soup, tmp_path / "soup.safetensors")
    assert open_checkpoint(tmp_path / "soup.safetensors").digest == soup.form.digest


def test_tensors_that_only_the_first_ingredient_ties_are_refused_as_pt(tmp_path: Path) -> None:
    tied = torch.ones(3)
    sweep = torch_sweep(
        tmp_path / "sweep",
        a={"in": tied, "out": tied},
        b={"in": torch.zeros(3), "out": torch.ones(3)},
    )
    soup = uniform(sweep)
    assert soup.output.why_no_pt is None
    with pytest.raises(CheckpointError, match=r"'in' and 'out' share memory in a\.pt"):
        save_checked(soup, tmp_path / "soup.pt")
    assert not list(tmp_path.glob("*.*"))
    save_checked(soup, tmp_path / "soup.safetensors")
    assert load_file(tmp_path / "soup.safetensors")["out"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"w": torch.ones(2, dtype=torch.float16)}, None),
        ({"w": torch.ones(2), "n": torch.tensor(3)}, "'n' is int64 .* in a.pt but float32 "),
        ({"w": torch.ones(2), "made by": Step("a", 0.5, True, (), 0, 0)}, "to be safe .*Step"),
    ],
)
def test_the_reason_against_pt_is_listed_and_raised(
    tmp_path: Path, first: dict[str, Any], reason: str | None
) -> None:
    other = {"w": torch.zeros(2)} | ({"n": torch.tensor(4.0)} if "n" in first else {})
    soup = uniform(torch_sweep(tmp_path / "sweep", a=first, b=other))
    if reason is None:
        assert soup.output.why_no_pt is None
        save_checked(soup, tmp_path / "soup.pt")
        assert torch.load(tmp_path / "soup.pt")["w"].tolist() == [0.5, 0.5]
        return
    assert re.search(reason, str(soup.output.why_no_pt))
    with pytest.raises(CheckpointError, match=rf"soup\.pt: .*{reason}.*as \.safetensors"):
        save_checked(soup, tmp_path / "soup.pt")
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("soup.bin2", {}, r"Unsupported extension: .*soup\.bin2\. Use \.safetensors"),
        ("soup.pt", {"dtype": "float16"}, "apply to .safetensors only"),
        ("soup.pt", {"shard_size": 9}, "apply to .safetensors only"),
        ("soup.safetensors", {"dtype": "float8"}, "as float32, float16, bfloat16, not float8"),
        ("soup.safetensors", {"dtype": torch.int8}, "not torch.int8"),
        ("soup.safetensors", {"shard_size": 0}, "must be positive, got 0"),
    ],
)
def test_forms_that_a_soup_is_not_written_in_are_refused(
    tmp_path: Path, sweep: Sweep, name: str, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        save_checked(uniform(sweep), tmp_path / name, **options)


# Its description


@pytest.mark.parametrize(
    "make",
    [
        lambda sweep, evaluator: uniform(sweep, ["run1", "run2"]),
        lambda sweep, evaluator: manual(sweep, {"run1": 3, "base": -1}),
        lambda sweep, evaluator: greedy(sweep, evaluator, accept=">"),
    ],
    ids=["uniform", "manual", "greedy"],
)
def test_a_soup_round_trips_through_json(
    sweep: Sweep, evaluator: Evaluator, make: Callable[[Sweep, Evaluator], Soup]
) -> None:
    soup = make(sweep, evaluator).evaluate(evaluator, ["val"])
    body = strict_json(json.dumps(soup.to_json()))
    again = Soup.from_json(Sweep.from_folder(sweep.folder), body)
    assert again.id == soup.id
    assert (again.recipe, again.parameters) == (soup.recipe, soup.parameters)
    assert list(again.coefficients.items()) == list(soup.coefficients.items())
    assert again.digests == soup.digests
    assert again.trace == soup.trace
    assert again.mixture == soup.mixture
    assert again.evaluations == {}


def test_a_description_of_other_weights_of_the_same_name_is_refused(sweep: Sweep) -> None:
    body = uniform(sweep, ["run1", "run2"]).to_json()
    changed = load_file(sweep["run2"].checkpoint.path)
    save_file({n: t + 1 for n, t in changed.items()}, sweep["run2"].checkpoint.path)
    with pytest.raises(RecipeError, match="weights of ingredient 'run2' changed"):
        Soup.from_json(Sweep.from_folder(sweep.folder), body)


def test_the_id_depends_on_the_weights_and_the_recipe(sweep: Sweep, evaluator: Evaluator) -> None:
    soups = [
        uniform(sweep),
        uniform(sweep, ["run1", "run2"]),
        manual(sweep, {"run1": 1, "run2": 1}),
        manual(sweep, {"run1": 1, "run2": 2}),
        greedy(sweep, evaluator),
        greedy(sweep, evaluator, accept=">"),
        greedy(sweep, evaluator, ["run1"]),
    ]
    assert len({soup.id for soup in soups}) == len(soups)
    assert uniform(sweep).id == soups[0].id == uniform(sweep).evaluate(evaluator).id
    assert manual(sweep, {"run2": 5, "run1": 5}).id == soups[2].id
    assert all(len(soup.id) == 16 and int(soup.id, 16) >= 0 for soup in soups)


# Its evaluations


def test_a_soup_is_evaluated_on_the_reported_splits_by_default(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    assert list(uniform(sweep).evaluate(evaluator).evaluations) == ["val", "test", "shift/noise"]
    assert list(uniform(sweep).evaluate(evaluator, ["test"]).evaluations) == ["test"]
    assert uniform(sweep).evaluate(evaluator, []).evaluations == {}


def test_evaluating_a_soup_reports_progress_up_to_the_end(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    reports: list[float] = []
    uniform(sweep).evaluate(evaluator, on_progress=lambda done, total: reports.append(done / total))
    assert reports == sorted(reports)
    assert reports[-1] == 1


# Its BatchNorm statistics


@pytest.fixture
def estimated(sweep: Sweep, evaluator: Evaluator) -> Soup:
    return uniform(sweep).re_estimate(evaluator)


def test_a_saved_soup_holds_the_statistics_that_were_estimated(
    tmp_path: Path, estimated: Soup, states: dict[str, State], task: ClassificationTask
) -> None:
    save_checked(estimated, tmp_path / "soup.safetensors")
    loaded = load_file(tmp_path / "soup.safetensors")
    model = build_model()
    model.load_state_dict(average(list(states.values())))
    update_bn([task.split("train").inputs], model)
    assert same_weights(loaded, estimated.state_dict())
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(loaded[name], tensor)


def test_a_soup_with_estimated_statistics_has_the_score_of_its_file(
    tmp_path: Path, estimated: Soup, task: ClassificationTask, evaluator: Evaluator
) -> None:
    save_checked(estimated, tmp_path / "soup.safetensors")
    found = estimated.evaluate(evaluator, ["test"]).evaluations["test"]
    expected = logits(load_file(tmp_path / "soup.safetensors"), task.split("test").inputs)
    torch.testing.assert_close(found.outputs, expected)


def test_a_soup_with_estimated_statistics_differs_and_round_trips_through_json(
    tmp_path: Path, sweep: Sweep, estimated: Soup, evaluator: Evaluator
) -> None:
    assert estimated.id != uniform(sweep).id
    again = Soup.from_json(sweep, strict_json(json.dumps(estimated.to_json())))
    assert (again.id, again.estimate) == (estimated.id, estimated.estimate)
    for use in (again.state_dict, lambda: save_checked(again, tmp_path / "soup.safetensors")):
        with pytest.raises(RecipeError, match=r"Call soup\.re_estimate"):
            use()
    again.re_estimate(evaluator)
    assert again.id == estimated.id
    assert same_weights(again.state_dict(), estimated.state_dict())


def test_evaluations_with_averaged_statistics_are_dropped(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).evaluate(evaluator, ["val"])
    assert soup.re_estimate(evaluator).evaluations == {}


def test_large_weights_that_lie_in_another_order_are_written_whole(tmp_path: Path) -> None:
    parts = [torch.randn(700, 600, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    (tmp_path / "sweep").mkdir()
    for name, part in zip("ab", parts, strict=True):  # several chunks, stored column by column
        torch.save({"w": part.t()}, tmp_path / "sweep" / f"{name}.pt")
    soup = uniform(Sweep.from_folder(tmp_path / "sweep"))
    save_checked(soup, tmp_path / "soup.pt")
    written = torch.load(tmp_path / "soup.pt", weights_only=True)["w"]
    assert written.stride() == (1, 600)
    torch.testing.assert_close(written, (parts[0] + parts[1]).t() / 2)


def test_a_soup_goes_into_a_network_without_a_file(sweep: Sweep, states: dict[str, State]) -> None:
    model = build_model()
    assert uniform(sweep).load_into(model) == []
    assert same_weights(model.state_dict(), average([*states.values()]))


def test_a_soup_goes_into_a_network_with_its_re_estimated_statistics(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).re_estimate(evaluator)
    model = nn.DataParallel(build_model())  # its names have a prefix
    soup.load_into(model)
    assert same_weights(model.module.state_dict(), soup.state_dict())
    assert not torch.equal(
        soup.state_dict()["1.running_mean"], uniform(sweep).state_dict()["1.running_mean"]
    )
