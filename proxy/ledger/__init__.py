"""Claims keys and books what became of them: the only writer on the hot path."""

from proxy.ledger.api import Ledger, LedgerUnavailable, ledger

__all__ = ["Ledger", "LedgerUnavailable", "ledger"]
