"""How a collection is addressed inside: by its path, one text that says the tenant and the name.

The path is `name` for the default tenant and `tenant/name` for every other, so each collection has
exactly one. Callers never see it: the ingress puts the tenant of their key before the names they
say, and takes it off again.
"""

from deployments.stores.content import COLLECTION_NAME, invalid, is_collection_name

DEFAULT_TENANT = "default"


def path_of(tenant: str, name: str) -> str:
    """Return the path of a tenant's collection."""
    return name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"


def parts_of(path: str) -> tuple[str, str] | None:
    """Return tenant and name, or None when no collection can have this path."""
    tenant, slash, name = path.rpartition("/")
    if not slash:
        tenant = DEFAULT_TENANT
    elif tenant == DEFAULT_TENANT:
        return None
    return (tenant, name) if is_collection_name(tenant) and is_collection_name(name) else None


def check_path(path: str) -> tuple[str, str]:
    """Return tenant and name; raises InvalidRequest unless a collection may have this path."""
    parts = parts_of(path)
    if parts is None:
        raise invalid(f"a collection's name must match ^{COLLECTION_NAME.pattern}$", "collection")
    return parts


def check_tenant(tenant: str) -> None:
    """Raise InvalidRequest unless a tenant may have this name; the rule is that of collections."""
    if not is_collection_name(tenant):
        raise invalid(f"a tenant's name must match ^{COLLECTION_NAME.pattern}$", "tenant")
