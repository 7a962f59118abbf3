"""Looks up which project a claim must come from, because the request names resources of that project."""

from dataclasses import replace
from datetime import datetime

from proxy.gemini.resources import can_be_looked_up
from proxy.ledger.claims import ClaimRequest, SeveralProjects, UnknownResource, UnknownUpload
from proxy.models import ApiKey, Resource


def with_owner(claim_request: ClaimRequest, moment: datetime) -> ClaimRequest:
    """Return a claim request with its owner or home.

    Raises UnknownResource, UnknownUpload, SeveralProjects. A resource that no project has leaves the choice open.
    """
    if claim_request.owner:
        return claim_request
    if claim_request.looks_for:
        home = Resource.objects.project_with(claim_request.looks_for, claim_request.tried_projects, moment)
        return replace(claim_request, home=home)
    if not claim_request.resources:
        return replace(claim_request, home=Resource.objects.home_of(claim_request.creator, moment))
    known = Resource.objects.owners(claim_request.resources, moment)
    if claim_request.has_no_token and not any(known.values()):
        raise UnknownUpload
    unknown = set(filter(can_be_looked_up, claim_request.resources - known.keys()))
    if unknown and _has_several_projects():
        raise UnknownResource(min(unknown))
    owners = {owner.project_id: owner for owner in known.values() if owner}
    if len(owners) > 1:
        raise SeveralProjects(sorted(name for name, owner in known.items() if owner))
    return replace(claim_request, owner=next(iter(owners.values()), None))


def _has_several_projects() -> bool:
    return len(ApiKey.objects.usable().order_by().values_list("project").distinct()[:2]) > 1
