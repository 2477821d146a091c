from __future__ import annotations

from perf_tests.harness.plugin.ledger import Ledger


def make_ledger() -> Ledger:
    ledger = Ledger()
    ledger.owe("b", ("ssim", "psnr_db"))
    ledger.owe("a", ("build",))
    return ledger


def test_all_that_was_planned_and_not_said_is_missing_in_order() -> None:
    assert make_ledger().missing() == ("a: build", "b: psnr_db", "b: ssim")


def test_what_was_said_is_not_missing() -> None:
    ledger = make_ledger()
    ledger.settle("b", ("ssim",))
    assert ledger.missing() == ("a: build", "b: psnr_db")


def test_a_declared_case_owes_nothing_more() -> None:
    ledger = make_ledger()
    ledger.excuse("b")
    assert ledger.missing() == ("a: build",)


def test_what_is_said_of_one_case_does_not_count_for_another() -> None:
    ledger = make_ledger()
    ledger.settle("a", ("ssim", "psnr_db"))
    assert ledger.missing() == ("a: build", "b: psnr_db", "b: ssim")


def test_what_was_never_planned_cannot_be_missing() -> None:
    ledger = Ledger()
    ledger.settle("a", ("build",))
    assert ledger.missing() == ()
