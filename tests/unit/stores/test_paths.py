import pytest

from deployments.errors import InvalidRequest
from deployments.stores.paths import check_path, check_tenant, parts_of, path_of


@pytest.mark.parametrize(
    ("tenant", "name", "path"),
    [("default", "docs", "docs"), ("acme", "docs", "acme/docs"), ("a" * 64, "b" * 64, None)],
)
def test_path_is_made_and_split(tenant: str, name: str, path: str | None):
    made = path_of(tenant, name)
    assert path is None or made == path
    assert parts_of(made) == check_path(made) == (tenant, name)


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a/b/c", "default/a", "A/b", "a/B", "../a"])
def test_other_texts_are_no_paths(path: str):
    assert parts_of(path) is None
    with pytest.raises(InvalidRequest):
        check_path(path)


@pytest.mark.parametrize("tenant", ["", "A", "a/b", "a b", "a" * 65, "é"])
def test_tenant_has_a_collections_name(tenant: str):
    check_tenant("acme.1")
    with pytest.raises(InvalidRequest) as caught:
        check_tenant(tenant)
    assert caught.value.param == "tenant"
