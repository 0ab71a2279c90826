from __future__ import annotations

from pipelines.training.stopping import Stopping


def run(patience: int, *epochs: tuple[float, float]) -> Stopping:
    state = Stopping(patience)
    for number, (auroc, loss) in enumerate(epochs, start=1):
        state = state.after(number, auroc, loss)
    return state


def test_the_highest_auroc_is_the_best_epoch_whatever_its_loss() -> None:
    assert run(5, (0.7, 0.1), (0.9, 0.8), (0.8, 0.2)).best_epoch == 2


def test_of_equal_aurocs_the_lower_loss_is_better() -> None:
    assert run(5, (0.9, 0.5), (0.9, 0.4), (0.9, 0.45)).best_epoch == 2


def test_of_equal_epochs_the_first_is_kept() -> None:
    assert run(5, (0.9, 0.5), (0.9, 0.5)).best_epoch == 1


def test_it_stops_after_patience_epochs_without_a_better_one() -> None:
    assert not run(2, (0.9, 0.5), (0.8, 0.5)).stops
    assert run(2, (0.9, 0.5), (0.8, 0.5), (0.85, 0.5)).stops


def test_a_better_epoch_starts_the_wait_anew() -> None:
    assert not run(2, (0.8, 0.5), (0.7, 0.5), (0.9, 0.5), (0.8, 0.5)).stops


def test_an_auroc_of_zero_is_better_than_none() -> None:
    assert run(2, (0.0, 9.0)).best_epoch == 1


def test_an_epoch_in_which_not_everything_learns_yet_is_no_reason_to_stop() -> None:
    state = Stopping(1).after(1, 0.9, 0.5).after(2, 0.8, 0.5, waits=False).after(3, 0.8, 0.5, waits=False)
    assert not state.stops
    assert state.after(4, 0.8, 0.5).stops
