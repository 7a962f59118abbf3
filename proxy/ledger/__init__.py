"""Claims keys and books what became of them: the only writer on the hot path."""

from proxy.ledger.api import Ledger, ledger
from proxy.ledger.writer import LedgerUnavailable

__all__ = ["Ledger", "LedgerUnavailable", "ledger"]
