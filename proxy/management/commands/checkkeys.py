"""`manage.py checkkeys`: ask the API about every key."""

from collections import Counter
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from tqdm import tqdm

from proxy.keycheck import Verdict, check_keys
from proxy.management.base import PoolCommand
from proxy.models import ApiKey


class Command(PoolCommand):
    help = "Ask the API about every key (this spends no quota), and mark what is bad."

    def handle(self, *args: Any, **options: Any) -> None:
        keys = list(ApiKey.objects.present().order_by("id"))
        if not keys:
            raise CommandError("There are no keys yet: python manage.py importkeys key.txt")
        verdicts: Counter[Verdict] = Counter()
        with tqdm(total=len(keys), unit="key", disable=None) as progress:  # no bar when it is not a terminal
            for key, verdict, reason in check_keys(keys, timezone.now()):
                verdicts[verdict] += 1
                progress.update()
                if verdict is not Verdict.GOOD:
                    progress.clear()
                    self.stdout.write(f"{key.label}: {verdict}, {reason}")
        told = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in Verdict)
        self.stdout.write(f"{len(keys)} keys: {told}.")
        if verdicts[Verdict.UNKNOWN] == len(keys):
            raise CommandError("The API gave no useful answer about any key; see UPSTREAM_URL and the network.")
