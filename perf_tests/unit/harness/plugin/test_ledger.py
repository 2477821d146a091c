"""The ledger: pairs in, what is missing out."""

from __future__ import annotations

from perf_tests.harness.plugin.ledger import Ledger


def make_ledger() -> Ledger:
    ledger = Ledger()
    ledger.owe("b", ("ssim", "psnr_db"))
    ledger.owe("a", ("build",))
    return ledger


def test_verdicts_that_are_owed_and_not_settled_are_missing_in_order() -> None:
    assert make_ledger().missing() == ("a: build", "b: psnr_db", "b: ssim")


def test_a_settled_verdict_is_not_missing() -> None:
    ledger = make_ledger()
    ledger.settle("b", ("ssim",))
    assert ledger.missing() == ("a: build", "b: psnr_db")


def test_an_excused_case_owes_nothing_more() -> None:
    ledger = make_ledger()
    ledger.excuse("b")
    assert ledger.missing() == ("a: build",)


def test_a_verdict_on_one_case_does_not_settle_another() -> None:
    ledger = make_ledger()
    ledger.settle("a", ("ssim", "psnr_db"))
    assert ledger.missing() == ("a: build", "b: psnr_db", "b: ssim")


def test_a_verdict_that_was_never_owed_cannot_be_missing() -> None:
    ledger = Ledger()
    ledger.settle("a", ("build",))
    assert ledger.missing() == ()
