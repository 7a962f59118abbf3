"""A made-up pool and its past, so that every page can be looked at: for `manage.py demo` and the measurement of pages.

`plan.py` says which keys and models there are, `pool/adding.py` puts them into the database, `usage.py` reckons what they did
on each quota day, `hours.py` and `log.py` break that down, and `fill.py` writes it all.
"""

from proxy.demo.fill import fill, is_empty
from proxy.demo.plan import Plan

__all__ = ["Plan", "fill", "is_empty"]
