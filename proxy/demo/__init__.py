"""A sample pool and its history, so that every page has something to show: for `manage.py demo` and `bench/pages.py`.

`plan.py` says which keys and models there are, `pool.py` adds them to the database, `usage.py` computes what they did
on each quota day, `hours.py` and `log.py` break that down, and `fill.py` writes it all.
"""

from proxy.demo.fill import fill, is_empty
from proxy.demo.plan import Plan

__all__ = ["Plan", "fill", "is_empty"]
