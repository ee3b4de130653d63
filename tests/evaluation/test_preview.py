from pathlib import Path

import pytest
import torch

from soupcore import Evaluator, Store
from soupcore.evaluation import Preview
from tests.toy import IMAGE_NETWORKS, IMAGES, image_sweep


@pytest.mark.parametrize("net", IMAGE_NETWORKS)
def test_a_preview_is_a_bfloat16_evaluation_with_its_error(
    tmp_path: Path, store: Store, net: str
) -> None:
    made = image_sweep(tmp_path / "sweep", net)
    evaluator = Evaluator(made.task, store, device="cpu")
    point = made.points()[4]
    preview = evaluator.preview(point, "val")
    assert isinstance(preview, Preview)
    exact = evaluator.evaluate(point, "val")
    assert (preview.mixture_key, preview.split, preview.n) == (point.key, "val", IMAGES)
    assert preview.loss == pytest.approx(exact.loss, abs=0.05)
    assert preview.loss != exact.loss
    assert preview.score == pytest.approx(exact.score, abs=0.1)

    # The effect is that on the first ingredient, here computed by hand.
    first = next(iter(point.sources))
    known = next(i.mixture for i in made.sweep.ingredients.values() if i.digest == first)
    assert preview.loss_effect != 0
    assert preview.loss_effect == pytest.approx(
        evaluator.preview(known, "val").loss - evaluator.evaluate(known, "val").loss
    )
    assert abs(preview.loss_effect) < 0.05
    assert preview.score_effect == pytest.approx(
        evaluator.preview(known, "val").score - evaluator.evaluate(known, "val").score
    )


def test_a_preview_is_not_remembered_and_leaves_no_trace(tmp_path: Path, store: Store) -> None:
    made = image_sweep(tmp_path / "sweep", "conv net")
    evaluator = Evaluator(made.task, store, device="cpu", batch_size=100)
    point = made.points()[4]
    reports: list[float] = []
    evaluator.preview(point, "val", on_progress=lambda done, total: reports.append(done / total))
    assert evaluator.stored([point], "val") == [None]
    assert reports == sorted(reports)
    assert reports[-1] == 1
    assert made.agrees(evaluator.evaluate(point, "val"), point)
    assert evaluator.evaluate(point, "val").outputs.dtype == torch.float32


def test_a_known_point_is_measured_once(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image_sweep(tmp_path / "sweep", "mlp")
    evaluator = Evaluator(made.task, store, device="cpu", batch_size=100)
    calls: list[bool] = []
    run = evaluator._forward_pass.run

    def counted(*arguments: object, in_bfloat16: bool = False, **options: object) -> object:
        calls.append(in_bfloat16)
        return run(*arguments, in_bfloat16=in_bfloat16, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluator._forward_pass, "run", counted)
    a, b = made.sweep["run0"].mixture, made.sweep["run1"].mixture
    evaluator.preview(a * 0.5 + b * 0.5, "val")
    assert calls == [False, True, True]
    evaluator.preview(a * 0.25 + b * 0.75, "val")
    assert calls == [False, True, True, True]
