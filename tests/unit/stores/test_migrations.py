from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, inspect, select

from deployments.config import RetrieverArgs
from deployments.stores import migrations, schema
from deployments.stores.buckets import bucket_of
from deployments.stores.database import Database
from deployments.stores.migrations import migrate
from deployments.stores.schema import metadata
from deployments.stores.search import Searcher
from deployments.types import SearchRequest
from tests.unit.stores.material import FORKSERVER, doc, put


def json_default_differs(_context, column, _other, found: str | None, _default, wanted: str | None):
    """Compare defaults of JSON as text, for PostgreSQL has no `=` for it; None: as Alembic does."""
    if not isinstance(column.type, JSON):
        return None
    return (found or "").removesuffix("::json").strip("'") != (wanted or "").strip("'")


def test_migrated_schema_is_the_one_in_schema(database: Database):
    with database.read() as connection:
        options = {"compare_type": True, "compare_server_default": json_default_differs}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrate_again_changes_nothing(database: Database, database_url: str):
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (x INTEGER)")
    migrate(database_url)
    with database.read() as connection:
        assert "mine" in inspect(connection).get_table_names()


def test_downgrade_leaves_no_table_and_upgrade_restores(database: Database, database_url: str):
    with database.migration() as connection:
        command.downgrade(migrations.alembic_config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrate(database_url)
    with database.read() as connection:
        assert set(metadata.tables) < set(inspect(connection).get_table_names())


def test_documents_of_the_first_revision_are_still_found(database: Database, database_url: str):
    put(database, [doc("a", "some text"), doc("b", "more text")])
    with database.migration() as connection:
        command.downgrade(migrations.alembic_config(connection), "0001")
    migrate(database_url)
    request = SearchRequest(collection="c", query="some", mode="lexical")
    found = Searcher(database, RetrieverArgs()).search(request, None, None)
    assert [chunk.document_id for chunk in found] == ["a"]
    with database.read() as connection:
        rows = connection.execute(select(schema.chunks.c["document_id", "bucket"])).all()
        assert {row.document_id: row.bucket for row in rows} == {
            "a": bucket_of("a"),
            "b": bucket_of("b"),
        }
        if database.is_sqlite:
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_many_processes_migrate_at_once(database_url: str):
    processes = [FORKSERVER.Process(target=migrate, args=(database_url,)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 8
    database = Database(database_url)
    with database.read() as connection:
        assert set(metadata.tables) < set(inspect(connection).get_table_names())
    database.close()


def test_template_of_new_revisions_is_in_the_package():
    assert (Path(migrations.__file__).parent / "script.py.mako").is_file()
