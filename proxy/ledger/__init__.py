"""Claims keys and books the outcome of each attempt. The only code on the hot path that writes to the database."""

from proxy.ledger.api import Ledger, ledger
from proxy.ledger.writer import LedgerUnavailable

__all__ = ["Ledger", "LedgerUnavailable", "ledger"]
